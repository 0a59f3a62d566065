"""Images with their captions, for image-text retrieval."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clim_data.annotations.caption_files import captions_of_images
from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.names import image_file_name
from clim_data.files.stamps import FileStamp
from clim_data.pixels.decode import load_rgb, pixels
from clim_data.pixels.transforms import center_crop
from clim_data.sources.expand import Sources
from clim_data.sources.images import open_named_images


class CaptionSample(NamedTuple):
    """image: uint8 (3, S, S); captions: its texts, none when the image cannot be read; image_id."""

    image: Tensor
    captions: list[str]
    image_id: int


class BrokenCaptionSample(CaptionSample):
    """A black image without captions, in place of an unreadable image.

    fault: the reason.
    """

    fault: BrokenSample


class ImageCaptions(Dataset):
    """COCO captions: shortest side to `image_px`, central square, all captions of the image.

    Images without a caption that has text are skipped, and named in `skipped`. `left_out` has the
    images that are skipped before any image is read.

    Args:
        images_dir: folder of the image files, or shards (see `expand_sources`).
        captions_json: COCO captions, or the CC3M layout where each image record carries "captions".
        image_px: side of the image in pixels.
        resize: "torch" (fast) or "pil" (the original's pixels); see `clim_data.pixels.transforms`.
        on_error: "skip" skips images whose file is missing or is not an image, and gives a black
            image without captions for an image that cannot be decoded to its end; "raise" raises.

    Raises:
        FileNotFoundError, ValueError: files are missing or no caption annotation; no image is
            usable.
    """

    def __init__(
        self,
        images_dir: Sources,
        captions_json: str | Path,
        image_px: int,
        *,
        resize: str = "torch",
        on_error: str = "skip",
    ):
        if resize not in ("torch", "pil"):
            raise ValueError(f'resize={resize!r} is not known: use "torch" or "pil"')
        self.image_px, self.resize, self.on_error = image_px, resize, check_on_error(on_error)
        self.skipped = SkipReport()
        report = None if on_error == "raise" else self.skipped.add
        listed = captions_of_images(captions_json, report)
        self.files = open_named_images(images_dir, [image_file_name(image) for image, _ in listed])

        # Place of the image's name, captions and id.
        self.items: list[tuple[int, list[str], int]] = []
        for place, (image, texts) in enumerate(listed):
            try:
                if not texts:
                    raise BrokenSample("empty caption", f"image {image['id']}")
                self.files.check(place)
                self.items.append((place, texts, image["id"]))
            except BrokenSample as fault:
                if on_error == "raise":
                    raise
                self.skipped.add(fault)
        self.left_out = tuple(self.skipped.faults)
        if not self.items:
            raise ValueError(
                f"{captions_json} names no image in {images_dir} ({self.skipped.summary(3)}): "
                "check both"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> CaptionSample:
        place, captions, image_id = self.items[i]
        try:
            source, name = self.files.find(place)
            image = load_rgb(source, name=name, oriented=True)
        except BrokenSample as fault:
            if self.on_error == "raise":
                raise
            self.skipped.add(fault)
            black = torch.zeros(3, self.image_px, self.image_px, dtype=torch.uint8)
            broken = BrokenCaptionSample(black, [], image_id)
            broken.fault = fault
            return broken
        picture = image if self.resize == "pil" else pixels(image)
        return CaptionSample(center_crop(picture, self.image_px), list(captions), image_id)

    def stamp(self, i: int) -> FileStamp | None:
        """Return a value that changes when the file of item i is replaced."""
        return self.files.stamp(self.items[i][0])
