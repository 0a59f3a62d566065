"""Pictures as files: the names they may have, and how they are written."""

import os
from pathlib import Path

from PIL import Image

from clim_models.checkpoints.atomic import write_whole

FORMAT_OF_SUFFIX = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
# Of JPEG and WebP: thin lines and letters stay sharp.
QUALITY = 92


def picture_format(path: Path) -> str:
    """Return the format of a picture by the ending of its name, as Pillow calls it.

    Raises:
        ValueError: no ending, or another one.
    """
    kind = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} names no format of pictures: end it with .jpg, .png or .webp")
    return kind


def picture_path(path: str | Path, *, source: str | Path | None = None) -> Path:
    """Check the path of a picture before the work for it begins, and make its folder.

    A picture that is there already will be replaced, unless it is the one that is read.

    Args:
        path: of the picture that will be written.
        source: the picture that is read, a file or an address.

    Returns:
        The path.

    Raises:
        ValueError: it is a folder, ends otherwise than a picture, would replace `source`, or cannot
            be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the picture, such as {path / 'picture.png'}")
    picture_format(path)
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise ValueError(f"{path} would replace the input picture: name another file")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(
            f"cannot write into {path.parent} ({fault}): name another place"
        ) from fault
    if not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"cannot write {path}: check who may write into {path.parent}, or name another place"
        )
    return path


def write_picture(image: Image.Image, path: str | Path | None) -> Image.Image:
    """Write a drawing whole, in the format of its name, and return it; without a path only return
    it.

    Raises:
        ValueError: as `picture_path`.
    """
    if path is None:
        return image
    path = picture_path(path)
    with write_whole(path) as draft:
        image.save(draft, format=picture_format(path), quality=QUALITY)
    return image
