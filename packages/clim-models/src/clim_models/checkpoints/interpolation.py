"""Weight interpolation between a fine-tuned model and the one it started from."""

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Mix two state dicts: alpha * student + (1 - alpha) * teacher.

    Integer entries are the student's. Entries that are equal in both, such as frozen weights, stay
    as they are to the last bit.

    Args:
        student, teacher: state dicts with the same keys and shapes.
        alpha: 1 is the student, 0 the teacher. Values between them trade region accuracy against
            image accuracy.

    Raises:
        ValueError: alpha outside [0, 1], or keys or shapes that differ (they are listed).

    Source: robust fine-tuning by weight-space ensembles (arXiv 2109.01903), used by CLIPSelf and
    CLIM.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; pass a number from 0 (teacher) to 1 (student)")
    only = sorted(student.keys() ^ teacher.keys())
    shapes = [k for k in student.keys() & teacher.keys() if student[k].shape != teacher[k].shape]
    if only or shapes:
        raise ValueError(
            f"the two state dicts differ: keys in one only {only[:5]}, shapes {sorted(shapes)[:5]} "
            f"({len(only) + len(shapes)} in all); interpolate checkpoints of the same model"
        )

    mixed = {}
    for key, value in student.items():
        other = teacher[key].to(value.device)
        # Rounding would change weights that were never trained, and with them the hash of a frozen
        # tower.
        if value.is_floating_point() and not torch.equal(value, other.to(value.dtype)):
            mix = value.float() * alpha + other.float() * (1 - alpha)
            mixed[key] = mix.to(value.dtype)
        else:
            mixed[key] = value.clone()
    return mixed
