"""Weight interpolation as a sweep: the region accuracy and the image-level accuracy at each alpha.

The weights alpha * student + (1 - alpha) * teacher lie on the line between the two (arXiv
2109.01903; the published CLIPSelf and CLIM models are such mixtures). Training does not depend on
alpha, so it can be chosen afterwards.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_models import RegionModel, create_model, interpolate_weights, load_checkpoint
from clim_models.checkpoints import check_values, read_tensors
from torch import Tensor, nn

from clim_eval.metrics.masks import with_prefix

Evaluators = Mapping[str, Callable[[], Mapping[str, float]]]


@dataclass(frozen=True)
class WeightPair:
    """The weights of student and teacher that differ, under the names of ``model.state_dict()``, on
    the CPU."""

    student: dict[str, Tensor]
    teacher: dict[str, Tensor]

    @property
    def change_texts(self) -> bool:
        """Whether text features depend on alpha: anything but the image tower and the logit scale
        differs."""
        return any(not name.startswith(("clip.visual.", "clip.logit_")) for name in self.student)


def weights_of_run(run: str | Path) -> WeightPair:
    """Read the weights of a training: ``trained.safetensors`` and ``start.safetensors`` of its run
    folder.

    Raises FileNotFoundError or ValueError when the folder is no run, its training was not exported,
    or a file is damaged.
    """
    run = Path(run)
    start, trained = run / "start.safetensors", run / "trained.safetensors"
    if not start.is_file():
        raise FileNotFoundError(
            f"{run} is not a run folder of a training (no {start.name}): pass one, or two "
            "checkpoints with "
            "--student and --teacher"
        )
    if not trained.is_file():
        raise FileNotFoundError(
            f"{run} has no {trained.name}: write it with `clim-train export {run}`"
        )
    try:
        pair = WeightPair(read_tensors(trained), read_tensors(start))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"weights in {run} are damaged ({error}): write them again with `clim-train export "
            f"{run}`"
        ) from error
    check_values(pair.student, pair.student, source=trained)
    check_values(pair.teacher, pair.teacher, source=start)
    return pair


def weights_of_checkpoints(name: str, student: str, teacher: str) -> tuple[RegionModel, WeightPair]:
    """Build a float32 model with the student's weights, and read where two checkpoints differ.

    Args:
        name: model name for `clim_models.create_model`.
        student, teacher: file, run folder or open_clip tag, in any layout
            `clim_models.load_checkpoint` knows.

    Raises FileNotFoundError and ValueError as these, and ValueError when the checkpoints are equal.
    """
    model = create_model(name, pretrained=teacher)
    of_teacher = {key: value.clone() for key, value in model.state_dict().items()}
    if Path(student).exists():
        load_checkpoint(model, student)
    else:
        model = create_model(name, pretrained=student)
    different = [
        key for key, value in model.state_dict().items() if not torch.equal(value, of_teacher[key])
    ]
    if not different:
        raise ValueError(
            f"{student} and {teacher} hold the same weights: pass a trained and an untrained "
            "checkpoint"
        )
    of_student = model.state_dict()
    pair = WeightPair(
        {key: of_student[key].clone() for key in different},
        {key: of_teacher[key] for key in different},
    )
    return model, pair


@torch.no_grad()
def alpha_sweep(
    model: nn.Module,
    weights: WeightPair,
    alphas: Sequence[float],
    evaluators: Evaluators,
    *,
    on_result: Callable[[float, dict[str, float]], None] | None = None,
) -> dict[float, dict[str, float]]:
    """Evaluate one model at every alpha: ``{alpha: {"EVALUATOR.METRIC": value}}``, alphas
    ascending.

    Args:
        model: has all other weights already. Its weights are replaced in place (mixed in float32,
            then rounded to the model's precision) and put back at the end.
        weights: student's and teacher's weights, with names of ``model.state_dict()``.
        alphas: numbers in [0, 1]; 0 is the teacher, 1 the student.
        evaluators: name -> function that returns metrics of the model as it is. Evaluators may keep
            decoded images and text features between calls; see `WeightPair.change_texts`.
        on_result: called after each alpha.

    Raises ValueError for no alpha or one outside [0, 1], and for weights that do not fit the model
    or each other.
    """
    alphas = check_alphas(alphas)
    own = model.state_dict()
    _check_fit(own, weights)
    before = {name: own[name].clone() for name in weights.student}
    results: dict[float, dict[str, float]] = {}
    try:
        for alpha in alphas:
            _set_weights(own, interpolate_weights(weights.student, weights.teacher, alpha))
            results[alpha] = {}
            for name, evaluate in evaluators.items():
                results[alpha] |= with_prefix(name, evaluate())

            if on_result is not None:
                on_result(alpha, results[alpha])
    finally:
        _set_weights(own, before)
    return results


def check_alphas(alphas: Sequence[float]) -> list[float]:
    """Return the alphas, ascending, each once.

    Raises:
        ValueError: there is none, or one is outside [0, 1].
    """
    wrong = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if wrong or not alphas:
        raise ValueError(
            f"alphas={list(alphas)}: pass numbers from 0 (start) to 1 (trained), such as 0 0.5 1"
        )
    return sorted({float(alpha) for alpha in alphas})


def pareto_alphas(
    results: Mapping[float, Mapping[str, float]], metrics: Sequence[str]
) -> list[float]:
    """Return the alphas that no other alpha beats.

    An alpha beats another one if it is at least as good in every metric and better in one; higher
    is better. Alphas where one of ``metrics`` was not measured (missing or nan) are not among them.
    """
    points: dict[float, list[float]] = {}
    for alpha, values in results.items():
        point = [values.get(metric, math.nan) for metric in metrics]
        if not any(map(math.isnan, point)):
            points[alpha] = point

    chosen = []
    for alpha, point in points.items():
        if not any(_beats(other, point) for other in points.values()):
            chosen.append(alpha)
    return chosen


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(first, second, strict=True)) and list(first) != list(second)


def _set_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        own[name].copy_(value)


def _check_fit(own: Mapping[str, Tensor], pair: WeightPair) -> None:
    if not pair.student:
        raise ValueError("student and teacher do not differ: pass weights of a training")
    for weights in (pair.student, pair.teacher):
        wrong = [
            name
            for name, value in weights.items()
            if name not in own
            or own[name].shape != value.shape
            or own[name].is_floating_point() != value.is_floating_point()
        ]
        if wrong:
            raise ValueError(
                f"{len(wrong)} weights do not fit the model ({', '.join(sorted(wrong)[:4])}): "
                "build the model that "
                "was trained, with its name and its export"
            )
