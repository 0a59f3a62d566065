"""Options of the region readers: sizes of the model, and rules for regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict


@dataclass(frozen=True)
class RegionView:
    """Sizes to which an image and its regions are brought for a model.

    Args:
        image_px: side of the letterboxed square.
        stride: patch size; masks get image_px / stride cells a side.
        crop_px: side of the region crops, None for no crops.
        antialias: of the mask resize; False is torchvision before 0.17, as in published numbers.
        resize: "torch" (fast) or "pil" (bit for bit the original's image pixels); see
            `clim_data.pixels.transforms`.
        context: window of a thing's crop, in sizes of its box.

    Raises:
        ValueError: an option is out of range.
    """

    image_px: int
    stride: int
    crop_px: int | None = None
    antialias: bool = True
    resize: str = "torch"
    context: float = 1.5

    def __post_init__(self) -> None:
        if self.stride < 1 or self.image_px < 1 or self.image_px % self.stride:
            raise ValueError(
                f"image_px={self.image_px} must be a positive multiple of stride={self.stride}"
            )
        if self.crop_px is not None and self.crop_px < 1:
            raise ValueError(f"crop_px={self.crop_px} must be None or at least 1")
        if self.resize not in ("torch", "pil"):
            raise ValueError(f'resize={self.resize!r} is not known: use "torch" or "pil"')
        if self.context < 1:
            raise ValueError(f"context={self.context} must be at least 1, the box itself")


@dataclass(frozen=True, kw_only=True)
class RegionRules:
    """Rules for the annotated regions of an image, and for the end of the box of a stuff segment.

    Raises:
        ValueError: a rule is out of range.
    """

    area_px: tuple[float, float] = (8, 1024)
    """Square roots of the smallest and largest box area in original pixels."""
    crowd: str = "keep"
    """"keep" crowd regions, as in published numbers, or "skip" them."""
    max_regions: int | None = None
    """Only as many regions of an image, the first ones (published numbers: 100); None for all."""
    stuff_box: str = "exact"
    """"exact" surrounds every pixel of a stuff segment; "inclusive" ends one pixel short, as in
    published numbers. Instances are things: it has no effect on them."""

    def __post_init__(self) -> None:
        low, high = self.area_px
        if not 0 <= low <= high:
            raise ValueError(f"area_px={self.area_px} must be two sides, the smaller one first")
        if self.crowd not in ("keep", "skip"):
            raise ValueError(f'crowd={self.crowd!r} is not known: use "keep" or "skip"')
        if self.max_regions is not None and self.max_regions < 1:
            raise ValueError(f"max_regions={self.max_regions} must be None or at least 1")
        if self.stuff_box not in ("exact", "inclusive"):
            raise ValueError(
                f'stuff_box={self.stuff_box!r} is not known: use "exact" or "inclusive"'
            )


class RegionKeywords(TypedDict, total=False):
    """The fields of `RegionView` and `RegionRules` as keywords of a reader, for one release."""

    image_px: int
    stride: int
    crop_px: int | None
    antialias: bool
    resize: str
    context: float
    area_px: tuple[float, float]
    crowd: str
    max_regions: int | None
    stuff_box: str


def choose_regions(
    view: RegionView | None, rules: RegionRules | None, keywords: Mapping[str, object]
) -> tuple[RegionView, RegionRules]:
    """Return `view` and `rules`; `keywords` make one that is None.

    Raises:
        ValueError: a keyword is given next to its object, or is out of range.
        TypeError: a keyword is unknown, or `image_px` or `stride` is given nowhere.
    """
    left: dict[str, Any] = dict(keywords)
    sizes = {name: left.pop(name) for name in RegionView.__dataclass_fields__ if name in left}

    for name, chosen, given in (("view", view, sizes), ("rules", rules, left)):
        if chosen is not None and given:
            raise ValueError(f"{', '.join(given)} given next to {name}: set it in its object")
    return view or RegionView(**sizes), rules or RegionRules(**left)
