"""Where the images of a training lie."""

from clim_train.options.checks import reject


def check_sources(shards: tuple[str, ...], images: str | None) -> None:
    """Raises ValueError where both shards and a folder of images are named."""
    if shards and images is not None:
        reject("data.images", images, "either it or data.shards, not both")
