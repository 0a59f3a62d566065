"""Features of boxes: the inputs of a model, and one pass for several images.

Letters: B images, n_i boxes of image i, N all boxes of a batch, C channels, S square input side,
c crop side.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from clim_data import decode_rgb
from clim_data.pixels import crop_window, cut_crops, enough_pixels, letterbox, padded_boxes
from clim_models import RegionModel, request_named
from PIL.Image import Image
from torch import Tensor

from clim_eval.evaluators.region_pass import BATCH_SIZE, CROPS_PER_PASS
from clim_eval.evaluators.regions import BOX_FEATURES


@dataclass(frozen=True, kw_only=True)
class BoxInputs:
    """One image as a model needs it for its boxes.

    boxes: (n, 4) XYXY in [0, 1] of the padded square. image: uint8 (3, S, S), or None with crops.
    crops: uint8 (n, 3, c, c), or None without.
    """

    boxes: Tensor
    image: Tensor | None
    crops: Tensor | None


Inputs = TypeVar("Inputs", bound=BoxInputs)


@dataclass(frozen=True)
class BoxCutter:
    """Makes the inputs of an image.

    crop_px, image_px: side of the crops, or of the whole images; the other is None. context: window
    of a crop in sizes of its box.

    Raises:
        ValueError: both or neither are given.
    """

    crop_px: int | None = None
    image_px: int | None = None
    context: float = 1.5

    def __post_init__(self) -> None:
        if (self.crop_px is None) == (self.image_px is None):
            raise ValueError(
                f"crop_px={self.crop_px}, image_px={self.image_px}: pass one of them, for crops or "
                "for whole images"
            )

    def cut(self, image: Image, boxes: Tensor) -> BoxInputs:
        """Cut boxes, (n, 4) XYXY in pixels, out of an opened image."""
        size = image.height, image.width
        relative = padded_boxes(boxes, size)
        if self.crop_px is not None:
            crops = _crops(image, boxes, crop_px=self.crop_px, context=self.context)
            return BoxInputs(boxes=relative, image=None, crops=crops)

        assert self.image_px is not None  # one of them is given
        needed = enough_pixels(size, [], image_px=self.image_px, crop_px=0)
        square = letterbox(decode_rgb(image, at_least=needed), self.image_px)
        return BoxInputs(boxes=relative, image=square, crops=None)


def _crops(image: Image, boxes: Tensor, *, crop_px: int, context: float) -> Tensor:
    """Cut uint8 (n, 3, c, c) crops around boxes, (n, 4) XYXY in pixels of the image."""
    size = image.height, image.width
    windows = [crop_window(box, size, context) for box in boxes.tolist()]
    picture = decode_rgb(image, at_least=enough_pixels(size, windows, image_px=0, crop_px=crop_px))

    # The decoder may return a smaller picture, so the windows are scaled with it.
    down, across = picture.shape[1] / size[0], picture.shape[2] / size[1]
    scaled = [
        (left * across, top * down, right * across, bottom * down)
        for left, top, right, bottom in windows
    ]
    return cut_crops(picture, scaled, crop_px)


class BoxEncoder(Generic[Inputs]):
    """A CLIP that encodes boxes.

    Args:
        model: RegionModel.
        features: one of `BOX_FEATURES`: "crops" encodes each box's crop as an image of its own, the
            others are readouts of the whole image.
        batch_size: crops, or whole images, per forward pass; crops of several images share one.
            None is `CROPS_PER_PASS`, or `BATCH_SIZE` images.

    Raises:
        ValueError: unknown features.
    """

    def __init__(self, model: RegionModel, features: str, batch_size: int | None = None):
        if features not in BOX_FEATURES:
            raise ValueError(f"features={features!r} is unknown: use one of {BOX_FEATURES}")
        self.model, self.features = model, features
        self.batch_size = batch_size or (CROPS_PER_PASS if features == "crops" else BATCH_SIZE)

    def batches(self, images: Iterable[Inputs]) -> Iterator[list[Inputs]]:
        """Collect images until they fill a pass."""
        pending: list[Inputs] = []
        for image in images:
            pending.append(image)
            if self._load(pending) >= self.batch_size:
                yield pending
                pending = []
        if pending:
            yield pending

    def _load(self, images: Sequence[Inputs]) -> int:
        return sum(len(one.boxes) for one in images) if self.features == "crops" else len(images)

    @torch.no_grad()
    def encode(self, images: Sequence[Inputs]) -> Tensor:
        """Encode all boxes of some images: (N, C) float32 unit rows.

        Raises:
            ValueError: the features are no finite numbers.
        """
        features = self._encode(images).float()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(
                "features hold NaN or infinity: check the model's weights and precision (try fp32 "
                "or bf16)"
            )
        return features

    def _encode(self, images: Sequence[Inputs]) -> Tensor:
        if self.features == "crops":
            crops = torch.cat([one.crops for one in images if one.crops is not None])
            parts = crops.split(self.batch_size)  # of (N, 3, c, c)
            features = [self.model.encode_image(self.model.normalize_pixels(p)) for p in parts]
            return torch.cat(features)

        pictures = [one.image for one in images if one.image is not None]
        pixels = self.model.normalize_pixels(torch.stack(pictures))  # (B, 3, S, S)
        boxes = [one.boxes.to(pixels.device) for one in images]
        request = request_named(self.features)
        return self.model.encode(pixels, [request], boxes=boxes)[request]
