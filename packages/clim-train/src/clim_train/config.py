"""What a run does, as frozen dataclasses: checked when built, written to `config.json`, overridden on the command line.

A recipe (see `clim_train.recipes`) is a function that returns one `TrainConfig`.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clim_data.mosaics import MosaicConfig

BoxMode = Literal["align", "attention"]
Precision = Literal["fp32", "amp_bf16", "bf16", "fp16"]
ScheduleKind = Literal["cosine", "const", "const_cooldown"]
Offload = Literal["none", "optimizer", "optimizer_and_parameters"]


def _reject(option: str, value: Any, legal: str) -> typing.NoReturn:
    raise ValueError(f"{option}={value!r} is not possible: use {legal}")


def _check_choice(owner: Any, section: str, name: str) -> None:
    choices = typing.get_args(typing.get_type_hints(type(owner))[name])
    value = getattr(owner, name)
    if value not in choices:
        _reject(f"{section}.{name}", value, "one of " + ", ".join(repr(c) for c in choices))


def _check_at_least(owner: Any, section: str, **minima: float) -> None:
    for name, minimum in minima.items():
        value = getattr(owner, name)
        if value is not None and value < minimum:
            _reject(f"{section}.{name}", value, f"a value of at least {minimum}")


@dataclass(frozen=True)
class ModelConfig:
    """The backbone: every name and `pretrained` value of `clim_models.create_model`."""

    name: str = "ViT-B-16-quickgelu"
    pretrained: str | None = None
    """open_clip tag, local checkpoint file, or run folder; None starts from random weights."""
    image_size: int | None = None
    """Native input side in pixels; None keeps that of the architecture."""
    unlocked_blocks: int = 6
    """How many of the last blocks of the image tower train."""
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        _check_at_least(self, "model", unlocked_blocks=0, image_size=1)
        if not self.name:
            _reject("model.name", self.name, "an open_clip model name")


@dataclass(frozen=True)
class DataConfig:
    """Image-text shards and how a batch is laid out as mosaics and single images."""

    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs."""
    batch_size: int = 32
    """Images per rank and micro-batch, tiles of mosaics included."""
    mosaic: MosaicConfig = field(default_factory=MosaicConfig)
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: Literal["skip", "raise"] = "skip"

    def __post_init__(self) -> None:
        _check_choice(self, "data", "background")
        _check_choice(self, "data", "on_error")
        _check_at_least(self, "data", batch_size=1, workers=0)


@dataclass(frozen=True)
class TaskConfig:
    """The training method. `clim`: pseudo regions and single images against their captions."""

    name: Literal["clim"] = "clim"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's v2); `attention` lets a class token attend in each tile (v1)."""
    mask_duplicate_captions: bool = False
    """True: pairs with the same caption are not negatives of each other."""
    text_cache: int = 65536
    """Captions whose text feature is kept while the text tower is frozen; 0 turns the cache off."""

    def __post_init__(self) -> None:
        _check_choice(self, "task", "name")
        _check_choice(self, "task", "box_mode")
        _check_at_least(self, "task", text_cache=0)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW. Betas and eps differ by tower: EVA02 and ResNets (0.9, 0.999) / 1e-8, OpenAI ViT (0.9, 0.98) / 1e-6."""

    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; None does not clip."""

    def __post_init__(self) -> None:
        _check_at_least(self, "optim", lr=0.0, weight_decay=0.0)
        if self.eps <= 0:
            _reject("optim.eps", self.eps, "a positive number")
        if not all(0 <= beta < 1 for beta in self.betas):
            _reject("optim.betas", self.betas, "two numbers in [0, 1)")
        if self.clip_norm is not None and self.clip_norm <= 0:
            _reject("optim.clip_norm", self.clip_norm, "a positive number, or None for no clipping")


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the run and learning rate at each optimizer step."""

    kind: ScheduleKind = "cosine"
    epochs: int = 1
    steps: int | None = None
    """Optimizer steps of the whole run; None takes them from `epochs`."""
    warmup_steps: int = 1000
    cooldown_steps: int = 0
    cooldown_power: float = 1.0
    cooldown_end_lr: float = 0.0

    def __post_init__(self) -> None:
        _check_choice(self, "schedule", "kind")
        _check_at_least(
            self, "schedule", epochs=1, steps=1, warmup_steps=0, cooldown_steps=0, cooldown_power=0, cooldown_end_lr=0
        )


@dataclass(frozen=True)
class EngineConfig:
    """How DeepSpeed runs the steps."""

    zero_stage: int = 1
    precision: Precision = "amp_bf16"
    """`amp_bf16`: bf16 arithmetic on fp32 weights (autocast). `bf16`, `fp16`: weights too, with fp32 master copies."""
    accumulation: int = 1
    """Micro-batches per optimizer step. The contrastive batch is one micro-batch over all ranks."""
    offload: Offload = "none"
    """Keep optimizer states (and, at stage 3, parameters) in host memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name in ("precision", "offload", "device"):
            _check_choice(self, "engine", name)
        _check_at_least(self, "engine", accumulation=1)
        if self.zero_stage not in (0, 1, 2, 3):
            _reject("engine.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        if self.zero_stage == 0 and self.precision in ("bf16", "fp16"):
            # Without ZeRO, DeepSpeed's 16-bit optimizer is off by one Adam step in its bias correction.
            _reject(
                "engine.precision",
                self.precision,
                "engine.zero_stage=1 (or higher) with it, or precision 'amp_bf16' or 'fp32' at stage 0",
            )
        if self.offload != "none" and self.zero_stage == 0:
            _reject("engine.offload", self.offload, "engine.zero_stage=1, 2 or 3 with it, or offload 'none'")
        if self.offload == "optimizer_and_parameters" and self.zero_stage != 3:
            _reject("engine.offload", self.offload, "engine.zero_stage=3 with it, or offload 'optimizer'")


@dataclass(frozen=True)
class EvaluationConfig:
    """Region accuracy, and retrieval beside it, on data in COCO layout. Nothing is measured where no file is named."""

    images: str | None = None
    panoptic_json: str | None = None
    panoptic_dir: str | None = None
    captions_json: str | None = None
    image_px: int = 1024
    crops: bool = False
    """Also classify each region from its crop (one more pass per region)."""

    def __post_init__(self) -> None:
        _check_at_least(self, "evaluation", image_px=1)
        wanted = {"panoptic_json": ("images", "panoptic_dir"), "captions_json": ("images",)}
        for option, needs in wanted.items():
            missing = [name for name in needs if getattr(self, name) is None]
            if getattr(self, option) is not None and missing:
                _reject(
                    f"evaluation.{option}", getattr(self, option), "it together with evaluation." + ", ".join(missing)
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
    """Optimizer steps between two evaluations; None evaluates before the first and after the last step only."""
    alpha: float = 1.0
    """The exported weights are alpha * trained + (1 - alpha) * start; training itself is not interpolated."""
    bar: bool = True
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check_at_least(self, "run", log_every=1, save_every=1, keep=1, eval_every=1)
        if not 0 <= self.alpha <= 1:
            _reject("run.alpha", self.alpha, "a number from 0 (start weights) to 1 (trained weights)")
        if not self.folder:
            _reject("run.folder", self.folder, "a folder name")


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on. `to_json` and `from_json` round-trip it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Reads what `to_json` wrote. Raises ValueError for unknown, missing or illegal options."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the configuration is not JSON ({error}): use the config.json of a run folder") from error
        return _build(cls, values, "config")

    @classmethod
    def load(cls, run_folder: str | Path) -> "TrainConfig":
        """The configuration of a run folder. Raises FileNotFoundError where there is none."""
        path = Path(run_folder) / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: give the folder of a run that was started before")
        return cls.from_json(path.read_text())


def _build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a plain dict, with lists turned into the declared tuples and JSON's text keys into integers."""
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict) or (unknown := sorted(set(values) - set(hints))):
        given = unknown if isinstance(values, dict) else values
        raise ValueError(f"{where} has unknown options {given}: the known ones are {', '.join(hints)}")
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return None if value is None else _convert(inner[0], value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple(value)
    if origin is dict:
        return {int(key): count for key, count in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and value is True)):
        raise ValueError(f"{where}={value!r} is not possible: use a value of type {hint.__name__}")
    return value
