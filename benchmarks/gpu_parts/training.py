"""Training on the device: three methods at each precision and ZeRO stage, then save, resume and
export (`gpu_parts.resuming`).

The references of a method are plain PyTorch loops, without DeepSpeed. Every variant starts from the
same weights and sees the same two batches in turn.
"""

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from clim_train import TrainConfig, build_task, learning_rate
from clim_train.engine import Engine, build_optimizer, start_distributed
from clim_train.options import choose_device
from torch import Tensor, nn

from gpu_parts.exact import exact_float32
from gpu_parts.record import Part
from gpu_parts.resuming import check_resume
from gpu_parts.training_cases import (
    METHODS,
    THINGS,
    first_batches,
    make_model,
    method_config,
    with_engine,
    write_photos,
)

# Differences of losses, relative to 1 + loss. A variant and its plain loop do the same arithmetic
# on the same weights; what differs is how it rounds.
# - Sums of gradients in another order (2^-24) can turn the rounding of a feature to bf16 (2^-9) the
# other way. A loss, a mean over features, moves by less than two of these.
# - With bf16 weights the rounding of a weight can turn, too, in every step: twice that.
# - At stage 3 DeepSpeed rounds each product before its bias is added and once again after: four
# times that.
# - fp16 against float32: after the 24 products of 12 blocks a feature is off by sqrt(24) x 2^-12 =
# 0.12 %, a logit by 14 (the temperature) times as much, 0.017, and a sum over 8 classes by 0.13,
# which is 2 % of 1 + its first loss.
SAME_ROUNDING, BF16_ROUNDING, STAGE_3_ROUNDING, FP16_ROUNDING = 2**-8, 2**-7, 2**-6, 2**-5

STEPS, HALF, SHORT, REHEARSED_STEPS = 20, 10, 6, 4


@dataclass(frozen=True)
class Variant:
    """How the engine runs, and for how many steps."""

    name: str
    engine: dict[str, Any]
    steps: int = STEPS
    needs_gpu: bool = False


def _stage(precision: str, stage: int) -> Variant:
    # The steps of stage 3 wait for each weight.
    steps = HALF if stage == 3 else STEPS
    return Variant(
        f"{precision}, stage {stage}", {"precision": precision, "zero_stage": stage}, steps
    )


AMP = [_stage("amp_bf16", stage) for stage in (0, 1, 2, 3)]
BF16 = [_stage("bf16", stage) for stage in (1, 2, 3)]
FP16 = Variant(
    "fp16 with loss scaling, stage 2", {"precision": "fp16", "zero_stage": 2}, needs_gpu=True
)
HOST = Variant(
    "amp_bf16, stage 2, optimizer on the host",
    {"precision": "amp_bf16", "zero_stage": 2, "offload": "optimizer"},
    steps=SHORT,
)
HOST3 = Variant(
    "bf16, stage 3, optimizer and parameters on the host",
    {"precision": "bf16", "zero_stage": 3, "offload": "optimizer_and_parameters"},
    steps=SHORT,
)
TWICE = Variant(
    "amp_bf16, stage 1, each batch twice by accumulation",
    {"precision": "amp_bf16", "zero_stage": 1, "accumulation": 2},
    steps=HALF,
)
VARIANTS = (*AMP, *BF16, FP16, TWICE, HOST, HOST3)

# What of the engine depends on the method: the order in which stage 3 gathers its modules, the means
# that accumulation adds up, and losses large or small enough to leave the range of fp16. The other
# methods run only these, and CLIM runs everything.
BY_METHOD = (AMP[1], AMP[3], BF16[2], FP16, TWICE)
ON_GPU = {"clim": VARIANTS, "clipself": BY_METHOD, "regionclip": BY_METHOD}

# A rehearsal runs all of them with one method; the others only show that their batches and losses
# fit.
REHEARSED = {"clim": VARIANTS, "clipself": (AMP[1], TWICE), "regionclip": (AMP[1], FP16)}


def run(part: Part) -> None:
    # Products of the deterministic run below need it, before the first product of the process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    began = time.monotonic()
    photos = write_photos(
        part.folder / "photos", 12 if part.tiny else 64, (48, 64) if part.tiny else (480, 640)
    )
    config = method_config("clim", part, photos)
    start_distributed(choose_device(config.engine))

    cases: dict[str, Case] = {}
    for method in METHODS:
        with part.guarded(f"{method}: set up"):
            cases[method] = Case(part, method_config(method, part, photos))
            cases[method].check_first_loss()
            for precision in ("amp_bf16", "bf16"):
                cases[method].run_reference(precision)

    # Variant by variant: what comes late for want of time is missing for all methods alike.
    for variant in VARIANTS:
        for method, case in cases.items():
            if variant not in (REHEARSED if part.tiny else ON_GPU)[method]:
                continue
            if time.monotonic() - began > 0.65 * part.seconds:
                part.check(f"{method}: {variant.name}", False, "left out: no time")
                continue
            with part.guarded(f"{method}: {variant.name}"):
                case.run_variant(variant)
    cases.clear()
    if part.on_gpu:
        torch.cuda.empty_cache()

    for method in METHODS:
        if time.monotonic() - began > 0.9 * part.seconds:
            part.check(f"{method}: save, resume, export", False, "left out: no time")
            continue
        with part.guarded(f"{method}: save, resume, export"):
            check_resume(
                part, method_config(method, part, photos, unlocked_blocks=1 if part.tiny else 2)
            )


class Case:
    """A method with its model, start weights, batches, and losses of the plain loop."""

    def __init__(self, part: Part, config: TrainConfig):
        self.part, self.config, self.method = part, config, config.task.name
        self.model = make_model(config, part.device)
        self.start = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.batches = first_batches(config, part.device)
        self.steps = REHEARSED_STEPS if part.tiny else STEPS
        self.first = torch.empty(1)
        self.references: dict[str, Tensor] = {}

    def check_first_loss(self) -> None:
        """The loss of the first batch in float32: on the device and on the CPU."""
        found = self._first_loss(self.part.device)
        wanted = self._first_loss(torch.device("cpu"))
        self.first = wanted.reshape(1)
        # A unit feature is off by about depth x sqrt(width) x 2^-24 = 2e-5; a logit by 14 (the
        # temperature) times that, and a loss by as much as a logit (a sum over 8 classes: eight
        # times that).
        self.part.close_to(
            f"{self.method}: first loss on the device against the CPU", found, wanted, 2e-3
        )

    def _first_loss(self, device: torch.device) -> Tensor:
        config = with_engine(self.config, precision="fp32")
        self.model.to(device)
        with torch.no_grad(), exact_float32():
            torch.manual_seed(0)
            loss = build_task(config, self.model, THINGS).loss(self.batches[0].to(device))["loss"]
        self.model.to(self.part.device)
        return loss

    def run_reference(self, precision: str) -> None:
        """Train with plain PyTorch: `loss.backward()` and AdamW on float32 weights.

        amp_bf16: bf16 arithmetic on these. bf16: the model has copies of them in bf16.
        """
        config = with_engine(self.config, precision=precision, zero_stage=1)
        self._restore()
        if precision == "bf16":
            self.model.bfloat16()
        task = build_task(config, self.model, THINGS)
        trained = task.trainable_parameters()
        weights = {name: nn.Parameter(p.detach().float().clone()) for name, p in trained.items()}
        optimizer = build_optimizer(
            weights, config.optim, bounds=getattr(task, "parameter_bounds", None)
        )

        losses = []
        torch.manual_seed(0)
        for step in range(self.steps):
            in_bf16 = torch.autocast(
                self.part.device.type, torch.bfloat16, enabled=precision == "amp_bf16"
            )
            with in_bf16:
                loss = task.loss(self.batches[step % 2])["loss"]
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, self.steps, config.optim, config.schedule)
            for name, p in trained.items():
                weights[name].grad, p.grad = p.grad.float(), None
            optimizer.step()
            with torch.no_grad():
                for name, p in trained.items():
                    p.copy_(weights[name])
            losses.append(loss.detach().float().reshape(()))
        self.references[precision] = torch.stack(losses).cpu()
        self._check_course(f"plain PyTorch loop in {precision}", self.references[precision])

    def run_variant(self, variant: Variant) -> None:
        """Train through the engine, and compare with the plain loop step by step."""
        name = f"{self.method}: {variant.name}"
        if variant.needs_gpu and not self.part.on_gpu:
            self.part.check(f"{name} (needs a GPU)", True, "not run on a CPU")
            return
        losses, skipped = self._train(variant)
        self._check_course(variant.name, losses)
        precision, stage = variant.engine["precision"], variant.engine["zero_stage"]
        if precision == "fp16":
            # A step whose gradient overflows at the first loss scales is left out, so that the runs
            # part.
            error = _worst(losses[:1], self.first)
            self.part.within(
                f"{name}: first loss against float32",
                error,
                FP16_ROUNDING,
                f"{skipped} steps left out",
            )
            return
        error = _worst(losses, self.references[precision][: len(losses)])
        tolerance = BF16_ROUNDING if precision == "bf16" else SAME_ROUNDING
        if stage == 3:
            tolerance = STAGE_3_ROUNDING
        self.part.within(f"{name}: losses against plain PyTorch", error, tolerance)

    def _train(self, variant: Variant) -> tuple[Tensor, int]:
        config = with_engine(self.config, **variant.engine)
        self._restore()
        engine = Engine(build_task(config, self.model, THINGS), config, device=self.part.device)
        losses = []
        torch.manual_seed(0)
        for step in range(min(variant.steps, self.steps)):
            rate = learning_rate(step, self.steps, config.optim, config.schedule)
            # Twice the same batch: the mean of two equal gradients is the gradient of one.
            for _ in range(config.engine.accumulation):
                scalars = engine.forward_backward(self.batches[step % 2])
                engine.step(rate)
            losses.append(scalars["loss"])
        found, skipped = torch.stack(losses).reshape(-1).cpu(), engine.updates_left_out
        engine.close()
        return found, skipped

    def _check_course(self, name: str, losses: Tensor) -> None:
        """Losses are finite, and those of the last two steps lie below those of the first two."""
        first, last = losses[:2].mean().item(), losses[-2:].mean().item()
        fine = bool(losses.isfinite().all()) and last < first
        detail = f"{len(losses)} steps, from {first:.4f} to {last:.4f}"
        self.part.check(f"{self.method}: {name}: losses are finite and fall", fine, detail)

    def _restore(self) -> None:
        self.model.float()
        self.model.load_state_dict(self.start)
        for parameter in self.model.parameters():
            parameter.grad = None


def _worst(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to 1 + loss; infinite where something is not finite."""
    difference = ((found - wanted).abs() / (1 + wanted.abs())).max().item()
    return difference if math.isfinite(difference) else math.inf
