"""The loss of CLIPSelf: features follow the features of a teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distillation(
    student: Tensor, teacher: Tensor, *, rows: Tensor | float | None = None
) -> Tensor:
    """Compute 1 - mean cosine of the student's and the teacher's rows.

    The computation is in float32 for all dtypes of features, also under autocast.

    Args:
        student, teacher: (n, C) rows of any length; n may be 0. No gradient reaches the teacher.
        rows: divisor of the sum of 1 - cosine; None divides by n. With R ranks that hold N rows
            together, pass N / R: the mean over ranks of losses and gradients is then the same as
            on one process with all rows.

    Returns:
        A float32 scalar, 0 for no rows.

    Raises:
        ValueError: shapes that do not match.

    Source: CLIPSelf, arXiv 2310.01403, section 3.2.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must both be "
            "(n, C): pass one teacher row for each student row"
        )
    with torch.autocast(student.device.type, enabled=False):
        cosines = F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)  # (n,)
        return (1 - cosines).sum() / (max(len(student), 1) if rows is None else rows)
