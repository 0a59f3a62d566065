"""What a training method is told: one dataclass per method (`task`) and one per kind of data it learns from (`data`).

A recipe fixes both kinds, so that their options are plain flags: `--task.box-mode`, `--data.image-px`. In a
`config.json` the kind is said by `task.name` and `data.kind`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from clim_data.mosaics import MosaicConfig

from clim_train.config_checks import check_at_least, check_choice, check_default, reject

BoxMode = Literal["align", "attention"]
Precision = Literal["fp32", "amp_bf16", "bf16", "fp16"]
OnError = Literal["skip", "raise"]

# -- data --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairDataConfig:
    """Image-text shards and how a batch is laid out as mosaics and single images (task `clim`)."""

    kind: Literal["pairs"] = "pairs"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs."""
    images: str | None = None
    """A folder of image files with captions (NAME.txt beside each, or metadata.jsonl), in place of shards."""
    batch_size: int = 32
    """Images per rank and micro-batch, tiles of mosaics included."""
    mosaic: MosaicConfig = field(default_factory=MosaicConfig)
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, workers=0)
        _check_sources(self)


@dataclass(frozen=True)
class CropDataConfig:
    """Images, boxes in them, and a crop of each box for the teacher (task `clipself`).

    Boxes are the cells of a random grid, or proposals where `boxes` names a file.
    """

    kind: Literal["crops"] = "crops"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs. Captions in them are not read."""
    images: str | None = None
    """A folder of image files, in place of shards."""
    images_json: str | None = None
    """COCO json: only images that it lists are used, for grids (`boxes` does so anyway); None uses all."""
    boxes: str | None = None
    """COCO json of proposals (see `clim-data proposals`); None draws a random grid for each image and epoch."""
    batch_size: int = 2
    """Images per rank and micro-batch."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    scales: tuple[int, ...] = ()
    """Multi-scale training: the sides to draw from, one for each step, `image_px` among them; () always takes that."""
    crop_px: int | None = None
    """Side of the teacher's crops; None takes the model's native image size."""
    max_split: int = 6
    """Grids only: at most so many rows and columns (and neither more than twice the other)."""
    max_cells: int = 20
    """Boxes per image: of more cells or proposals, so many are drawn."""
    context: float = 1.5
    """Proposals only: the crop is the box enlarged so many times around its centre."""
    min_box_px: int = 8
    """Proposals only: smaller ones (square root of the area, original pixels) are left out."""
    max_box_px: int = 1024
    """Proposals only: larger ones (square root of the area, original pixels) are left out."""
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, image_px=1, crop_px=1, max_split=1, max_cells=1, workers=0)
        check_at_least(self, "data", context=1.0, min_box_px=0, max_box_px=self.min_box_px + 1)
        if self.scales and (min(self.scales) < 1 or self.image_px not in self.scales):
            reject("data.scales", self.scales, f"sides of at least 1 pixel with image_px={self.image_px} among them")
        _check_sources(self)
        if self.images_json is not None and self.boxes is not None:
            reject("data.images_json", self.images_json, "it without data.boxes, which restricts the images itself")
        if self.boxes is None:
            check_default(self, "data", ("context", "min_box_px", "max_box_px"), "it together with data.boxes")
        else:
            check_default(self, "data", ("max_split",), "it without data.boxes, for grids")


@dataclass(frozen=True)
class BoxDataConfig:
    """Images and boxes that have a class (task `regionclip`)."""

    kind: Literal["boxes"] = "boxes"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs. Captions in them are not read."""
    images: str | None = None
    """A folder of image files, in place of shards."""
    boxes: str | None = None
    """COCO json with categories: pseudo labels (see `clim-eval pseudo-label`) or annotations of your own."""
    batch_size: int = 2
    """Images per rank and micro-batch."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    max_boxes: int = 20
    """Boxes per image: of more, so many are drawn."""
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, image_px=1, max_boxes=1, workers=0)
        _check_sources(self)


DataConfig = PairDataConfig | CropDataConfig | BoxDataConfig


def _check_sources(data: DataConfig) -> None:
    if data.shards and data.images is not None:
        reject("data.images", data.images, "either it or data.shards, not both")


# -- methods -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClimConfig:
    """CLIM: pseudo regions and single images against their captions."""

    DATA: ClassVar[type] = PairDataConfig
    name: Literal["clim"] = "clim"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's v2); `attention` lets a class token attend in each tile (v1)."""
    mask_duplicate_captions: bool = False
    """True: pairs with the same caption are not negatives of each other."""
    text_cache: int = 65536
    """Captions whose text feature is kept while the text tower is frozen; 0 turns the cache off."""

    def __post_init__(self) -> None:
        check_choice(self, "task", "name")
        check_choice(self, "task", "box_mode")
        check_at_least(self, "task", text_cache=0)


@dataclass(frozen=True)
class ClipSelfConfig:
    """CLIPSelf: box features of the dense map follow the frozen start model's features of the boxes' crops."""

    DATA: ClassVar[type] = CropDataConfig
    name: Literal["clipself"] = "clipself"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's); `attention` lets a class token attend in each box."""
    teacher_precision: Precision | None = None
    """Weights and arithmetic of the teacher, as `engine.precision` (None: the same)."""
    teacher_batch: int | None = None
    """Crops per forward of the teacher, to save memory; None takes all of a batch at once."""

    def __post_init__(self) -> None:
        check_choice(self, "task", "name")
        check_choice(self, "task", "box_mode")
        check_at_least(self, "task", teacher_batch=1)
        legal = get_args(Precision)
        if self.teacher_precision is not None and self.teacher_precision not in legal:
            named = ", ".join(repr(precision) for precision in legal)
            reject("task.teacher_precision", self.teacher_precision, f"one of {named}, or None for engine.precision")


@dataclass(frozen=True)
class RegionClipConfig:
    """RegionCLIP-style: each box against the names of classes, as so many yes-or-no questions."""

    DATA: ClassVar[type] = BoxDataConfig
    name: Literal["regionclip"] = "regionclip"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's); `attention` lets a class token attend in each box."""
    embeddings: str | None = None
    """Class embeddings of `clim-eval embed`, or a .npy in the order of the category ids; None embeds the category
    names with the model's own text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""
    sampled_classes: int | None = 100
    """Classes a batch is asked about: those present in it, and others by chance up to so many; None asks about all."""
    sampling: Literal["distinct", "original"] = "distinct"
    """`original` counts a present class twice where there are fewer classes than `sampled_classes`."""

    def __post_init__(self) -> None:
        for name in ("name", "box_mode", "templates", "sampling"):
            check_choice(self, "task", name)
        check_at_least(self, "task", sampled_classes=1)
        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.sampled_classes is None:
            check_default(self, "task", ("sampling",), "it together with a number of task.sampled_classes")


TaskConfig = ClimConfig | ClipSelfConfig | RegionClipConfig


def check_match(task: TaskConfig, data: DataConfig) -> None:
    """Raises ValueError unless the data are of the kind that the method learns from."""
    if not isinstance(data, task.DATA):
        legal = f"data of kind {task.DATA().kind!r} ({task.DATA.__name__}) with task {task.name!r}"
        reject("data.kind", data.kind, legal)
