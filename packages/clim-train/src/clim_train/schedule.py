"""Learning rate as a pure function of the optimizer step.

Steps count from 0 and the rate is set before the step is taken. `total` is the number of optimizer
steps of the run.
"""

import math

from clim_train.options.sections import OptimConfig, ScheduleConfig


def warmup_lr(step: int, *, base: float, warmup: int, start: float | None = None) -> float:
    """Linear warm-up that reaches `base` at the last of `warmup` steps.

    It begins with base / warmup, or where `start` is given with start * base.
    """
    if start is None:
        return base * (step + 1) / warmup
    return base * (start + (1 - start) * (step / (warmup - 1) if warmup > 1 else 1))


def cosine_lr(
    step: int, *, base: float, warmup: int, total: int, start: float | None = None
) -> float:
    """Warm-up, then half a cosine from `base` to 0 at step `total` (SGDR, arXiv 1608.03983, without
    restarts)."""
    if step < warmup:
        return warmup_lr(step, base=base, warmup=warmup, start=start)
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * progress)) * base


def const_lr(step: int, *, base: float, warmup: int, start: float | None = None) -> float:
    """Warm-up, then `base`."""
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
    """Warm-up, then `base`, then a polynomial of degree `power` from `base` to `end` over the last
    `cooldown` steps."""
    first = total - cooldown
    if step < warmup or step < first:
        return const_lr(step, base=base, warmup=warmup, start=start)
    remaining = 1 - (step - first) / max(cooldown, 1)
    return remaining**power * (base - end) + end


def learning_rate(step: int, total: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """The rate of a run's configuration at optimizer step `step` of `total`."""
    share = schedule.warmup_share
    warmup = schedule.warmup_steps if share is None else int(share * total)
    common = {"base": optim.lr, "warmup": warmup, "start": schedule.warmup_start}
    if schedule.kind == "cosine":
        return cosine_lr(step, total=total, **common)
    if schedule.kind == "const":
        return const_lr(step, **common)
    return const_cooldown_lr(
        step,
        total=total,
        cooldown=schedule.cooldown_steps,
        power=schedule.cooldown_power,
        end=schedule.cooldown_end_lr,
        **common,
    )


def warmup_note(total: int, optim: OptimConfig, schedule: ScheduleConfig) -> str | None:
    """What to tell the user of a run whose `total` steps end before its warm-up does; None for any
    other."""
    if schedule.warmup_share is not None or total >= schedule.warmup_steps:
        return None
    highest = learning_rate(total - 1, total, optim, schedule)
    return (
        f"the run ends after {total:,} steps, within its warm-up of {schedule.warmup_steps:,}: the "
        "learning rate will "
        f"not exceed {highest:.1e} of {optim.lr:.1e}; use --schedule.warmup-share 0.1, or more "
        "--schedule.epochs"
    )


def total_steps(batches_per_epoch: int, accumulation: int, schedule: ScheduleConfig) -> int:
    """Optimizer steps of a run: `schedule.steps`, or whole groups of `accumulation` batches times
    the epochs.

    Batches that are left over at the end of an epoch are not used. Raises ValueError when an epoch
    has no whole group.
    """
    per_epoch = batches_per_epoch // accumulation
    if per_epoch == 0:
        raise ValueError(
            f"an epoch has {batches_per_epoch} batches, fewer than "
            f"engine.accumulation={accumulation}: "
            "use more data, a smaller data.batch_size or less accumulation"
        )
    return schedule.steps if schedule.steps is not None else per_epoch * schedule.epochs
