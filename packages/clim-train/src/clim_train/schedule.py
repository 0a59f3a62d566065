"""Learning rate as a pure function of the optimizer step.

Steps count from 0, and the rate is set before the step is taken. `total` is the number of optimizer
steps of the run.
"""

import math
from collections.abc import Sequence

from clim_train.options.sections import OptimConfig, ScheduleConfig


def warmup_lr(step: int, *, base: float, warmup: int, start: float | None = None) -> float:
    """Return the rate of a linear warm-up that reaches `base` at the last of `warmup` steps.

    Args:
        start: first rate, as a fraction of `base`; None begins with base / warmup.
    """
    if start is None:
        return base * (step + 1) / warmup
    return base * (start + (1 - start) * (step / (warmup - 1) if warmup > 1 else 1))


def cosine_lr(
    step: int, *, base: float, warmup: int, total: int, start: float | None = None
) -> float:
    """Return the rate of a warm-up, then half a cosine from `base` to 0 at step `total`.

    SGDR (arXiv 1608.03983) without restarts.
    """
    if step < warmup:
        return warmup_lr(step, base=base, warmup=warmup, start=start)
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * progress)) * base


def whole_cosine_lr(
    step: int, *, base: float, warmup: int, total: int, start: float | None = None
) -> float:
    """Return the rate of a warm-up times half a cosine over the whole run, to 0 at step `total`."""
    rate = const_lr(step, base=base, warmup=warmup, start=start)
    return 0.5 * (1 + math.cos(math.pi * step / total)) * rate


def const_lr(step: int, *, base: float, warmup: int, start: float | None = None) -> float:
    """Return the rate of a warm-up, then `base`."""
    return warmup_lr(step, base=base, warmup=warmup, start=start) if step < warmup else base


def const_cooldown_lr(
    step: int,
    *,
    base: float,
    warmup: int,
    total: int,
    cooldown: int,
    power: float = 1.0,
    end: float = 0.0,
    start: float | None = None,
) -> float:
    """Return the rate of a warm-up, then `base`, then a cool-down over the last `cooldown` steps.

    The cool-down is a polynomial of degree `power` from `base` to `end`.
    """
    first = total - cooldown
    if step < warmup or step < first:
        return const_lr(step, base=base, warmup=warmup, start=start)
    remaining = 1 - (step - first) / max(cooldown, 1)
    return remaining**power * (base - end) + end


def step_lr(
    step: int,
    *,
    base: float,
    warmup: int,
    milestones: Sequence[int],
    factor: float,
    start: float | None = None,
) -> float:
    """Return the rate of a warm-up, then `base` times `factor` for each milestone that was reached.

    Args:
        milestones: steps from which on the rate is lower.
    """
    rate = const_lr(step, base=base, warmup=warmup, start=start)
    return rate * factor ** sum(step >= milestone for milestone in milestones)


def learning_rate(step: int, total: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """Return the rate of a run's configuration at optimizer step `step` of `total`."""
    base, start = optim.lr, schedule.warmup_start
    warmup = schedule.warmup_steps
    if schedule.warmup_share is not None:
        warmup = int(schedule.warmup_share * total)

    if schedule.kind == "cosine":
        return cosine_lr(step, base=base, warmup=warmup, total=total, start=start)
    if schedule.kind == "whole_cosine":
        return whole_cosine_lr(step, base=base, warmup=warmup, total=total, start=start)
    if schedule.kind == "const":
        return const_lr(step, base=base, warmup=warmup, start=start)
    if schedule.kind == "step":
        return step_lr(
            step,
            base=base,
            warmup=warmup,
            milestones=[round(share * total) for share in schedule.decay_at],
            factor=schedule.decay_factor,
            start=start,
        )
    return const_cooldown_lr(
        step,
        base=base,
        warmup=warmup,
        total=total,
        cooldown=schedule.cooldown_steps,
        power=schedule.cooldown_power,
        end=schedule.cooldown_end_lr,
        start=start,
    )


def warmup_note(total: int, optim: OptimConfig, schedule: ScheduleConfig) -> str | None:
    """Return a warning for a run that ends before its warm-up does, or None."""
    if schedule.warmup_share is not None or total >= schedule.warmup_steps:
        return None
    highest = max(learning_rate(step, total, optim, schedule) for step in range(total))
    longer = "--schedule.epochs" if schedule.steps is None else "--schedule.steps"
    return (
        f"the run ends after {total:,} steps, within its warm-up of {schedule.warmup_steps:,}: the "
        f"learning rate will not exceed {highest:.1e} of {optim.lr:.1e}; use "
        f"--schedule.warmup-share 0.1, or more {longer}"
    )


def total_steps(batches_per_epoch: int, accumulation: int, schedule: ScheduleConfig) -> int:
    """Return the number of optimizer steps of a run.

    It is `schedule.steps`, or the number of whole groups of `accumulation` batches times the
    epochs. Batches that are left over at the end of an epoch are not used. Raises ValueError where
    an epoch has no whole group.
    """
    per_epoch = batches_per_epoch // accumulation
    if per_epoch == 0:
        raise ValueError(
            f"an epoch has {batches_per_epoch} batches, fewer than "
            f"engine.accumulation={accumulation}: use more data, a smaller data.batch_size or less "
            "accumulation"
        )
    return schedule.steps if schedule.steps is not None else per_epoch * schedule.epochs
