"""One pass of the image tower over images with regions, for one or several evaluators.

Letters: B images, n_i regions of image i, N all regions of a batch, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from clim_data import BrokenSample, SkipReport
from clim_data.processes import gather_objects
from clim_models import Attended, Pooled, Request
from clim_models.towers import evaluation_mode
from torch import Tensor

from clim_eval.evaluators.pixels import RegionEncoder
from clim_eval.evaluators.sharing import (
    EvaluationLoading,
    keyed_batches,
    merge_by_key,
    progress_bar,
)

BATCH_SIZE = 8  # images per forward pass
CROPS_PER_PASS = 256


@dataclass(frozen=True)
class PassFeatures:
    """The features of a batch.

    Attributes:
        of: request -> its feature, as `RegionModel.encode` gives it.
        crops: (N, C) image features of the regions' crops; None where no evaluator asked for them.
    """

    of: Mapping[Request, Tensor]
    crops: Tensor | None


class PassEvaluator(Protocol):
    """The interface of an evaluator for `collect_in_one_pass`.

    Attributes:
        title: of the progress bar.
        requests: name -> feature that it reads.
        crops: whether it also reads the features of crops.
    """

    title: str
    model: RegionEncoder
    requests: dict[str, Request]
    crops: bool
    loading: EvaluationLoading

    def answer(self, samples: Sequence[Any], features: PassFeatures) -> list[Any]:
        """Return one answer for each of these samples, all of which have regions."""

    def finish(self, data: Any, answers: list[Any], left_out: list["LeftOut"]) -> Any:
        """Return the result of all answers, which are in the order of the data set."""


@dataclass(frozen=True)
class LeftOut:
    """The skipped parts of one image: the image itself, or some or all of its regions.

    image: the fault of the image, or a warning about it (`SampleWarning`).
    """

    image: tuple[BrokenSample, ...]
    regions: tuple[BrokenSample, ...]
    lost_regions: int

    @classmethod
    def of(cls, sample: Any) -> "LeftOut":
        """Read the faults of a RegionSample; samples of other data sets need not have any."""
        fault = getattr(sample, "fault", None)
        if fault is not None:
            return cls((fault,), (), getattr(sample, "annotated", 0))

        found = SkipReport(getattr(sample, "left_out", ()))
        image: list[BrokenSample] = [*found.warnings]
        if len(sample.labels) == 0:
            image.append(BrokenSample("no region that counts", f"image {sample.image_id}"))
        return cls(tuple(image), tuple(found.faults), 0)


@torch.no_grad()
def collect_in_one_pass(data: Any, evaluators: Sequence[PassEvaluator]) -> list[Any]:
    """Return what `collect` of each evaluator returns, from one pass of their image tower.

    Images are read and encoded once for all evaluators. Every rank calls it.

    Args:
        data: a dataset of RegionSample, or a loader of lists of them, as for each evaluator.
        evaluators: of one model; the first decides about batch size, workers and progress bar.

    Raises:
        ValueError: no evaluator, or evaluators of several models.
    """
    if not evaluators or any(one.model is not evaluators[0].model for one in evaluators):
        raise ValueError("pass at least one evaluator, all of the same model")

    first = evaluators[0]
    batches, total = keyed_batches(
        data,
        lambda sample: sample.image_id,
        batch_size=first.loading.batch_size or BATCH_SIZE,
        workers=first.loading.workers,
    )
    answers: list[list[tuple[Any, Any]]] = [[] for _ in evaluators]
    left_out: list[tuple[Any, LeftOut]] = []
    with evaluation_mode(first.model):
        for batch in progress_bar(batches, total, first.title, first.loading.progress):
            left_out += [(key, LeftOut.of(sample)) for key, sample in batch]
            pairs = [pair for pair in batch if len(pair[1].labels)]
            if not pairs:
                continue

            samples = [sample for _, sample in pairs]
            features = _encode(samples, evaluators)
            for found, evaluator in zip(answers, evaluators, strict=True):
                rows = evaluator.answer(samples, features)
                found += [(key, row) for (key, _), row in zip(pairs, rows, strict=True)]

    faults = merge_by_key(gather_objects(left_out))
    results = []
    for found, evaluator in zip(answers, evaluators, strict=True):
        results.append(evaluator.finish(data, merge_by_key(gather_objects(found)), faults))
    return results


def _encode(samples: Sequence[Any], evaluators: Sequence[PassEvaluator]) -> PassFeatures:
    """Encode the images once, for what any of the evaluators reads."""
    model = evaluators[0].model
    wanted = [request for one in evaluators for request in one.requests.values()]
    requests = list(dict.fromkeys(wanted))
    crops = encode_crops(model, samples) if any(one.crops for one in evaluators) else None
    if not requests:
        return PassFeatures({}, crops)

    pixels = model.normalize_pixels(torch.stack([sample.image for sample in samples]))
    found = model.encode(
        pixels,  # (B, 3, S, S)
        requests,
        boxes=_regions_of(samples, "boxes", requests, pixels.device),
        masks=_regions_of(samples, "masks", requests, pixels.device),
    )
    return PassFeatures(found, crops)


def _regions_of(
    samples: Sequence[Any], kind: str, requests: Sequence[Request], device: torch.device
) -> list[Tensor] | None:
    """Return the boxes or masks of each sample, or None if no request needs them."""
    of_regions = [one for one in requests if isinstance(one, Pooled | Attended)]
    if all(request.regions != kind for request in of_regions):
        return None
    if any(getattr(sample, kind) is None for sample in samples):
        raise ValueError(
            f"{kind} are needed, but the data brings none: build it with {kind}, or leave out the "
            f"outputs named {kind}..."
        )
    return [getattr(sample, kind).to(device) for sample in samples]


def encode_crops(model: RegionEncoder, samples: Sequence[Any]) -> Tensor:
    """Return (N, C) image features of the crops of all regions.

    Raises:
        ValueError: the data bring no crops.
    """
    if any(sample.crops is None for sample in samples):
        raise ValueError(
            "crops=True, but the data brings no crops: build it with crop_px "
            "(PanopticRegions(..., crop_px=model.image_size[0])), or pass crops=False"
        )
    crops = torch.cat([sample.crops for sample in samples])  # (N, 3, c, c)
    # Crops of several images share a pass.
    features = []
    for part in crops.split(CROPS_PER_PASS):
        features.append(model.encode_image(model.normalize_pixels(part)))
    return torch.cat(features)
