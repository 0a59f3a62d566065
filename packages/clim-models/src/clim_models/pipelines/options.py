"""Options of pipelines that few users change."""

from collections.abc import Sequence
from dataclasses import dataclass

from clim_models.pipelines.skipping import check_on_error
from clim_models.text.prompts import VILD_TEMPLATES

FEATURES = ("boxes", "boxes_value", "boxes_attention")


@dataclass(frozen=True)
class PipelineOptions:
    """Options of a pipeline for reading pictures and naming regions.

    Attributes:
        batch_size: pictures of one forward pass.
        image_px: longest side of the input in pixels. None is the size at which the model was
            trained on regions, else the size of its pretraining; detectors know their own.
        features: the feature that names a box: "boxes" (RoIAlign of the dense map, for CLIPs
            trained on regions), "boxes_value" (the same without the last residual), or
            "boxes_attention" (class tokens that see the box only, the better choice for a CLIP that
            was not).
        templates: sentences that labels are put into.
        precision: of weights that are loaded here, "fp32", "bf16" or "fp16".
        min_score: regions with a lower score are dropped, unless their boxes were given.
        on_error: what happens to a picture of a list that cannot be read. "skip" goes on: its
            result has no regions and says why under `error`, and a warning at the end counts and
            names such pictures. "raise" stops at the first. A picture that is passed by itself
            always raises, and so does a list of which none can be read.
        trusted: accept a model name in a stranger's folder that may bring code.

    Raises:
        ValueError: a value that is out of range.
    """

    batch_size: int = 16
    image_px: int | None = None
    features: str = "boxes"
    templates: Sequence[str] = VILD_TEMPLATES
    precision: str = "fp32"
    min_score: float = 0.0
    trusted: bool = False
    on_error: str = "skip"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: pass at least 1")
        if self.image_px is not None and self.image_px < 1:
            raise ValueError(f"image_px={self.image_px}: pass a side in pixels, at least 1")
        if self.features not in FEATURES:
            raise ValueError(f"features={self.features!r}: choose from {', '.join(FEATURES)}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: pass a number from 0 to 1")
        check_on_error(self.on_error)
