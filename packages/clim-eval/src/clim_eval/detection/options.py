"""Options of the evaluation of detections, as objects that check themselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clim_eval.class_vectors import ClassSource
from clim_eval.evaluators.regions import BOX_FEATURES
from clim_eval.evaluators.sharing import check_sizes
from clim_eval.metrics.detection import ALL_PROTOCOLS
from clim_eval.metrics.tables import check_iou_type

TRANSFERS: dict[str, Literal["fvit-transfer-coco", "fvit-transfer"]] = {
    "coco": "fvit-transfer-coco",
    "other": "fvit-transfer",
}
"""Presets of clim_models for data sets that a detector was not trained on: COCO, and others such as
Objects365 and VOC."""


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of the scoring of detections.

    protocol: one of `ALL_PROTOCOLS`; None chooses by the annotation file. base, novel: names of
    classes whose AP is averaged apart; None takes the "split" of the categories, or the lists of
    OV-COCO.
    iou_types: "bbox", "segm"; None takes what the detections have.

    Raises:
        ValueError: an unknown protocol or IoU type, or one of base and novel alone.
    """

    protocol: str | None = None
    base: tuple[str, ...] | None = None
    novel: tuple[str, ...] | None = None
    iou_types: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in ALL_PROTOCOLS:
            raise ValueError(f"--protocol {self.protocol}: choose from {', '.join(ALL_PROTOCOLS)}")
        if (self.base is None) != (self.novel is None):
            raise ValueError("--base and --novel belong together: pass both files of names")
        for iou_type in self.iou_types or ():
            check_iou_type(iou_type)


@dataclass(frozen=True)
class DetectionOptions:
    """The options of `clim-eval detection`, by the same names.

    checkpoint: run folder of a detector's training, or folder of an exported detector.
    detections: COCO results of any detector, in place of a checkpoint.
    annotations: COCO or LVIS json. images: folder of its images; without it, detections of a file
    are scored and no picture is drawn.
    out: folder for detections.json and the report; None prints only.
    classes: where the vectors of the categories come from, unless they are the classes of the
    training.
    protocol: how detections are scored.
    transfer: one of `TRANSFERS`: judge an F-ViT of another data set by the paper's rule of scores;
    None keeps the rule of its training.
    device, trust: where the detector runs, and whether a folder may name a tower that brings code.
    batch_size, workers: of loading. part_images: images per part; a killed run loses one part.
    patience: seconds that rank 0 waits without news of the others. overwrite: replace an output of
    other input or options.

    Raises:
        ValueError: an option is out of range, is missing, or contradicts another.
    """

    annotations: Path
    checkpoint: Path | None = None
    detections: Path | None = None
    images: Path | None = None
    out: Path | None = None
    classes: ClassSource = field(default_factory=ClassSource)
    protocol: ProtocolOptions = field(default_factory=ProtocolOptions)
    transfer: str | None = None
    device: str | None = None
    trust: bool = False
    batch_size: int = 4
    workers: int = 0
    part_images: int = 128
    patience: float = 1800
    overwrite: bool = False

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.detections is None):
            raise ValueError(
                "pass the run folder of a detector's training, or --detections JSON with the "
                "results of any detector, and not both"
            )
        given = self.classes.vocabulary or self.classes.embeddings
        if self.detections is not None and given:
            raise ValueError(
                f"{given} is for a detector, and --detections has results already: leave out "
                "--vocabulary and --class-embeddings"
            )
        if self.transfer is not None:
            if self.transfer not in TRANSFERS:
                raise ValueError(f"--transfer {self.transfer}: choose from {', '.join(TRANSFERS)}")
            if self.detections is not None or given:
                raise ValueError(
                    "--transfer embeds the names of the annotation file for a detector: leave out "
                    "--detections, --vocabulary and --class-embeddings"
                )
        if self.checkpoint is not None and (self.images is None or self.out is None):
            raise ValueError("a detector needs --images DIR to look at and --out DIR to write to")
        check_sizes(self.batch_size, self.workers, self.part_images)


@dataclass(frozen=True)
class RescoreOptions:
    """The options of `clim-eval rescore`, by the same names.

    The new score is the weighted geometric mean

        score ** (1 - weight - iou_weight) * probability ** weight * iou ** iou_weight

    of the detector's score, the probability of the category among all categories by a CLIP (softmax
    of cosines times its temperature), and the IoU that the detector predicts, field `iou_field` of
    the results. With F-VLM's weight of 0.35 for classes that the detector knows and 0.65 for others
    (arXiv 2209.15639), and iou_weight 0, this is their rule.

    detections: COCO results. annotations: COCO json with the images and categories; its annotations
    do not count. images: folder of the images. out: COCO results to write.
    model, pretrained, precision, device, trust: which CLIP, and where it runs.
    features: one of `BOX_FEATURES`. image_px: side of the input; None is the size of the training,
    else 64 patches. context: size of a crop in sizes of its box.
    classes: where the vectors of the categories come from.
    batch_size: crops (default 256) or whole images (8) per forward pass. workers, part_images,
    patience, overwrite: as in `DetectionOptions`.

    Raises:
        ValueError: an option is out of range, or contradicts another.
    """

    detections: Path
    annotations: Path
    images: Path
    out: Path
    weight: float = 0.35
    iou_weight: float = 0.0
    iou_field: str = "iou"
    model: str | None = None
    pretrained: str | None = None
    precision: str = "fp32"
    device: str | None = None
    trust: bool = False
    features: str = "boxes"
    image_px: int | None = None
    context: float = 1.5
    classes: ClassSource = field(default_factory=ClassSource)
    batch_size: int | None = None
    workers: int = 0
    part_images: int = 128
    patience: float = 1800
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_weights(self.weight, self.iou_weight)
        if self.features not in BOX_FEATURES:
            raise ValueError(f"--features {self.features}: choose from {', '.join(BOX_FEATURES)}")
        if self.out.is_dir():
            raise ValueError(f"--out {self.out} is a folder: name the json file to write")
        check_sizes(self.batch_size, self.workers, self.part_images)


def check_weights(weight: float, iou_weight: float) -> None:
    """Refuse weights that cannot be the weights of a mean.

    Raises:
        ValueError: one is negative or not a number, or their sum is more than 1.
    """
    both = (weight, iou_weight)
    if not all(math.isfinite(one) and one >= 0 for one in both) or sum(both) > 1:
        raise ValueError(
            f"--weight {weight} --iou-weight {iou_weight}: pass numbers from 0 whose sum is at "
            "most 1; the rest is the weight of the detector's score"
        )


def shorten_names(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
