"""The sections of a run's configuration that do not depend on the method."""

from dataclasses import dataclass, field, replace
from typing import Literal

from clim_train.options.checks import check_at_least, check_choice, check_default, reject
from clim_train.options.paths import PATH, PATH_OR_NAME

ScheduleKind = Literal["cosine", "whole_cosine", "const", "const_cooldown", "step"]

Offload = Literal["none", "optimizer", "optimizer_and_parameters"]

BoxMode = Literal["align", "attention"]

Precision = Literal["fp32", "amp_bf16", "bf16", "fp16"]

OnError = Literal["skip", "raise"]


@dataclass(frozen=True)
class ModelConfig:
    """The backbone: every name and `pretrained` value of `clim_models.create_model`."""

    name: str = "ViT-B-16-quickgelu"
    pretrained: str | None = field(default=None, metadata=PATH_OR_NAME)
    """open_clip tag, local checkpoint file, or run folder; None starts from random weights."""
    image_size: int | None = None
    """Native input side in pixels. None keeps the side of the architecture."""
    unlocked_blocks: int = 6
    """How many of the last blocks of the image tower train."""
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, "model", unlocked_blocks=0, image_size=1)
        if not self.name:
            reject("model.name", self.name, "an open_clip model name")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, or SGD with momentum. Betas and eps of AdamW differ by tower: EVA02 and ResNets (0.9,
    0.999) / 1e-8, OpenAI ViT (0.9, 0.98) / 1e-6."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.1
    decay: Literal["matrices", "all_but_norms", "all"] = "matrices"
    """Parameters to decay: `matrices` (two or more dimensions, no norms), `all_but_norms`, or
    `all`."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; None does not clip."""

    def __post_init__(self) -> None:
        check_at_least(self, "optim", lr=0.0, weight_decay=0.0)
        for name in ("kind", "decay"):
            check_choice(self, "optim", name)
        if self.kind == "adamw":
            check_default(self, "optim", ("momentum",), "it together with optim.kind 'sgd'")
        else:
            check_default(self, "optim", ("betas", "eps"), "it with optim.kind 'adamw'")
        if not 0 <= self.momentum < 1:
            reject("optim.momentum", self.momentum, "a number in [0, 1)")
        if self.eps <= 0:
            reject("optim.eps", self.eps, "a positive number")
        if not all(0 <= beta < 1 for beta in self.betas):
            reject("optim.betas", self.betas, "two numbers in [0, 1)")
        if self.clip_norm is not None and self.clip_norm <= 0:
            reject("optim.clip_norm", self.clip_norm, "a positive number, or None for no clipping")


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the run and learning rate at each optimizer step."""

    kind: ScheduleKind = "cosine"
    """`cosine` falls from the end of the warm-up, `whole_cosine` from the first step on."""
    epochs: int = 1
    steps: int | None = None
    """Optimizer steps of the whole run; None takes them from `epochs`."""
    warmup_steps: int = 1000
    warmup_share: float | None = None
    """Length of the warm-up as a fraction of the run's steps, in place of `warmup_steps`."""
    warmup_start: float | None = None
    """Learning rate of the first step, as a fraction of `optim.lr`. None starts at `lr` divided by
    the steps of the warm-up."""
    cooldown_steps: int = 0
    cooldown_power: float = 1.0
    cooldown_end_lr: float = 0.0
    decay_at: tuple[float, ...] = ()
    """Points at which the learning rate is multiplied by `decay_factor`, as rising fractions of the
    run's steps."""
    decay_factor: float = 0.1

    def __post_init__(self) -> None:
        check_choice(self, "schedule", "kind")
        check_at_least(
            self,
            "schedule",
            epochs=1,
            steps=1,
            warmup_steps=0,
            cooldown_steps=0,
            cooldown_power=0,
            cooldown_end_lr=0,
        )
        if self.kind != "const_cooldown":
            names = ("cooldown_steps", "cooldown_power", "cooldown_end_lr")
            check_default(
                self, "schedule", names, "it together with schedule.kind 'const_cooldown'"
            )
        if self.kind != "step":
            own = ("decay_at", "decay_factor")
            check_default(self, "schedule", own, "it together with schedule.kind 'step'")
        elif not self.decay_at or list(self.decay_at) != sorted({*self.decay_at}):
            reject("schedule.decay_at", self.decay_at, "rising shares of the run, such as 0.8 0.9")
        elif not 0 < self.decay_at[0] <= self.decay_at[-1] < 1:
            reject("schedule.decay_at", self.decay_at, "shares of the run between 0 and 1")
        elif not 0 < self.decay_factor < 1:
            reject("schedule.decay_factor", self.decay_factor, "a number between 0 and 1")
        for name in ("warmup_share", "warmup_start"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                reject(f"schedule.{name}", value, "a number from 0 to 1, or None")


@dataclass(frozen=True)
class EngineConfig:
    """How DeepSpeed runs the steps."""

    zero_stage: int | None = None
    """What ZeRO partitions over the ranks. None is `sharded_stage`, or 0 if there is nothing to
    shard: one rank in `fp32` or `amp_bf16` without offload, where sharding would only cost
    memory."""
    sharded_stage: int = 1
    """Stage of several ranks if `zero_stage` is None."""
    precision: Precision = "amp_bf16"
    """`amp_bf16`: bf16 arithmetic on fp32 weights (autocast). `bf16`, `fp16`: weights too, with
    fp32 master copies."""
    accumulation: int = 1
    """Micro-batches per optimizer step. The contrastive batch is one micro-batch over all ranks."""
    offload: Offload = "none"
    """Keep optimizer states (and, at stage 3, parameters) in host memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """Compile the blocks of the image tower with `torch.compile`: faster steps and less memory on a
    GPU, after a first step of about a minute. Not at stage 3, and not for CNNs."""
    whole_below: int = 100_000
    """Stage 3: parameters with fewer elements stay whole on every rank (DeepSpeed's persistence
    threshold)."""
    timeout_minutes: int = 30
    """A rank that waits longer than this for the others ends with an error."""

    def __post_init__(self) -> None:
        for name in ("precision", "offload", "device"):
            check_choice(self, "engine", name)
        check_at_least(self, "engine", accumulation=1, whole_below=0, timeout_minutes=1)
        if self.zero_stage not in (None, 0, 1, 2, 3):
            reject(
                "engine.zero_stage",
                self.zero_stage,
                "0, 1, 2 or 3, or None to choose by the number of ranks",
            )
        if self.sharded_stage not in (1, 2, 3):
            reject("engine.sharded_stage", self.sharded_stage, "1, 2 or 3")
        if self.zero_stage == 0 and self.precision in ("bf16", "fp16"):
            # Without ZeRO, DeepSpeed's 16-bit optimizer is off by one Adam step in its bias
            # correction.
            reject(
                "engine.precision",
                self.precision,
                "engine.zero_stage=1 (or higher) with it, or precision 'amp_bf16' or 'fp32' at "
                "stage 0",
            )
        if self.offload != "none" and self.zero_stage == 0:
            reject(
                "engine.offload",
                self.offload,
                "engine.zero_stage=1, 2 or 3 with it, or offload 'none'",
            )
        if self.offload == "optimizer_and_parameters" and self.zero_stage != 3:
            reject(
                "engine.offload",
                self.offload,
                "engine.zero_stage=3 with it, or offload 'optimizer'",
            )
        if self.compile and 3 in (self.zero_stage, self.sharded_stage):
            # ZeRO-3 fetches weights in hooks of the modules inside a block, which split its graph.
            reject(
                "engine.compile",
                self.compile,
                "engine.zero_stage=0, 1 or 2 (and sharded_stage=1 or 2) with it, or False",
            )

    def for_ranks(self, world_size: int) -> "EngineConfig":
        """Return the options with the stage that `world_size` ranks use. A stage that the options
        name stays."""
        if self.zero_stage is not None:
            return self
        unsharded = (
            world_size == 1 and self.offload == "none" and self.precision in ("fp32", "amp_bf16")
        )
        return replace(self, zero_stage=0 if unsharded else self.sharded_stage)


@dataclass(frozen=True)
class EvaluationConfig:
    """Region accuracy and retrieval on data in COCO layout. Without a file nothing is measured."""

    images: str | None = field(default=None, metadata=PATH)
    panoptic_json: str | None = field(default=None, metadata=PATH)
    panoptic_dir: str | None = field(default=None, metadata=PATH)
    captions_json: str | None = field(default=None, metadata=PATH)
    image_px: int = 1024
    crops: bool = False
    """Also classify each region from its crop (one more pass per region)."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names of classes: 63, one, or the name alone."""

    def __post_init__(self) -> None:
        check_at_least(self, "evaluation", image_px=1)
        check_choice(self, "evaluation", "templates")
        wanted = {"panoptic_json": ("images", "panoptic_dir"), "captions_json": ("images",)}
        for option, needs in wanted.items():
            missing = [name for name in needs if getattr(self, name) is None]
            if getattr(self, option) is not None and missing:
                reject(
                    f"evaluation.{option}",
                    getattr(self, option),
                    "it together with evaluation." + ", ".join(missing),
                )


@dataclass(frozen=True)
class RunConfig:
    """Where the run is written and how often."""

    folder: str = "runs/clim"
    seed: int = 0
    log_every: int = 10
    """Optimizer steps between two lines of metrics (one device synchronisation each)."""
    save_every: int = 1000
    keep: int = 2
    """Newest checkpoints that are kept."""
    eval_every: int | None = None
    """Optimizer steps between two evaluations; None evaluates before the first and after the last
    step only."""
    alpha: float = 1.0
    """The exported weights are alpha * trained + (1 - alpha) * start; training itself is not
    interpolated."""
    bar: bool = True
    """Show where the run is: a live bar in a terminal, lines elsewhere."""
    tensorboard: bool = True
    wandb: str | None = None
    """Project of Weights & Biases to which metrics go, too. WANDB_MODE=offline needs no account."""
    mlflow: str | None = None
    """Experiment of MLflow to which metrics go, too; MLFLOW_TRACKING_URI says where."""

    def __post_init__(self) -> None:
        check_at_least(self, "run", log_every=1, save_every=1, keep=1, eval_every=1)
        if not 0 <= self.alpha <= 1:
            reject(
                "run.alpha", self.alpha, "a number from 0 (start weights) to 1 (trained weights)"
            )
        if not self.folder:
            reject("run.folder", self.folder, "a folder name")
