"""Options of a training of the heads: frozen dataclasses next to those of clim-train, whose
Trainer reads them."""

from dataclasses import dataclass, field
from typing import Literal

from clim_train import EngineConfig, OptimConfig, RunConfig, ScheduleConfig
from clim_train.options import (
    OUTPUT,
    PATH,
    PATH_OR_NAME,
    JsonConfig,
    check_at_least,
    check_choice,
    reject,
)

from flmm.attention.capture import MERGES
from flmm.text.prompts import DESCRIBE

Weights = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class GroundedModelConfig:
    """The frozen models, and the heads that train."""

    lmm: str = field(default="llava-hf/llava-1.5-7b-hf", metadata=PATH_OR_NAME)
    """Folder or hub id, as `flmm.load_lmm`."""
    lmm_dtype: Weights = "bfloat16"
    """Weights and arithmetic of the LMM; the heads are float32, or as `engine.precision` says."""
    sam: str = field(default="facebook/sam-vit-large", metadata=PATH_OR_NAME)
    """Refiner: SAM's folder, hub id, or file in the original layout (sam_vit_l_0b3195.pth); "none"
    trains the mask head alone."""
    sam_dtype: Weights = "bfloat16"
    """Dtype of SAM's frozen image encoder. SAM's prompt encoder and mask decoder train with the
    heads."""
    heads: str | None = field(default=None, metadata=PATH)
    """Heads to start from: a file of `GroundedLMM.save_heads` or a released checkpoint; None draws
    new ones."""
    merge: str = "mean"
    """How the attention of a phrase's tokens becomes one map, "mean" or "max"."""
    grad_checkpointing: bool = False
    """Recompute activations of the heads in the backward pass, to save memory."""

    def __post_init__(self) -> None:
        check_choice(self, "model", "lmm_dtype")
        check_choice(self, "model", "sam_dtype")
        if self.merge not in MERGES:
            reject("model.merge", self.merge, "one of " + ", ".join(map(repr, MERGES)))
        for name in ("lmm", "sam"):
            if not getattr(self, name):
                reject(f"model.{name}", getattr(self, name), "a folder or hub id")


@dataclass(frozen=True)
class GroundingDataConfig:
    """Shards of `clim-data pack png` and `clim-data pack refcoco`, shuffled together."""

    kind: Literal["grounding"] = "grounding"
    narratives: tuple[str, ...] = field(default=(), metadata=PATH)
    """Panoptic Narrative Grounding: folders of shards, each a set of its own."""
    expressions: tuple[str, ...] = field(default=(), metadata=PATH)
    """RefCOCO, RefCOCO+, RefCOCOg: a folder of shards for each."""
    request: str = DESCRIBE
    """What the LMM is asked before the expressions."""
    narrative_request: str | None = None
    """What it is asked before a narrative; None: `request`."""
    redraw: bool = False
    """Draw other sentences of an object in each epoch. False keeps the sentences of the first
    epoch, as the original does."""
    batch_size: int = 1
    """Images per rank and micro-batch."""
    workers: int = 4
    on_error: Literal["skip", "raise"] = "skip"

    def __post_init__(self) -> None:
        check_choice(self, "data", "kind")
        check_choice(self, "data", "on_error")
        check_at_least(self, "data", batch_size=1, workers=0)
        if self.redraw and not self.expressions:
            reject("data.redraw", self.redraw, "it together with data.expressions")


@dataclass(frozen=True)
class FeatureCacheConfig:
    """Where the features of the frozen models are stored, so that later epochs and runs need not
    compute them."""

    folder: str | None = field(default=None, metadata=OUTPUT)
    """Folder of the features. None computes them in every epoch. Ranks on several nodes need a
    folder that all of them see."""
    max_gb: float | None = None
    """Limit of what all ranks write together. Features beyond it are computed each time. None is no
    limit."""

    def __post_init__(self) -> None:
        check_at_least(self, "cache", max_gb=0.0)
        if self.max_gb is not None and self.folder is None:
            reject("cache.max_gb", self.max_gb, "it together with cache.folder")


def grounding_optim(*, lr: float = 1e-4) -> OptimConfig:
    """Return the AdamW of F-LMM: all weights decay by 0.01, gradients are clipped at norm 1."""
    return OptimConfig(
        lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, decay="all", clip_norm=1.0
    )


def grounding_schedule() -> ScheduleConfig:
    """Return the schedule of F-LMM: a warm-up from 1e-5 of the learning rate over 3 % of the steps,
    then half a cosine to 0."""
    return ScheduleConfig(
        kind="cosine", epochs=8, warmup_steps=0, warmup_share=0.03, warmup_start=1e-5
    )


@dataclass(frozen=True)
class GroundingConfig(JsonConfig):
    """All options of a run; `from_json` reads what `to_json` writes."""

    model: GroundedModelConfig = field(default_factory=GroundedModelConfig)
    data: GroundingDataConfig = field(default_factory=GroundingDataConfig)
    cache: FeatureCacheConfig = field(default_factory=FeatureCacheConfig)
    optim: OptimConfig = field(default_factory=grounding_optim)
    schedule: ScheduleConfig = field(default_factory=grounding_schedule)
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(sharded_stage=2, precision="fp32")
    )
    run: RunConfig = field(
        default_factory=lambda: RunConfig(folder="runs/flmm", save_every=500, keep=1)
    )

    def __post_init__(self) -> None:
        if self.engine.precision in ("bf16", "fp16"):
            reject(
                "engine.precision",
                self.engine.precision,
                "'fp32' or 'amp_bf16': the heads stay float32",
            )
        if self.cache.folder is not None and self.data.redraw:
            reject(
                "data.redraw",
                self.data.redraw,
                "False with cache.folder: features of other sentences are others",
            )
