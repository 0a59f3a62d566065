"""Masks of a whole data set against the true ones: counts of every sample, by any number of
processes, resumable.

Letters: B images of a batch, N phrases of an image, H W its pixels.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from clim_data import BrokenSample, GroundingSample, SkipReport
from clim_data.processes import Ranks, gather_objects, load_in_workers
from clim_data.streams import rank_share
from clim_eval import Coverage, MaskScores, mask_overlaps, write_report
from clim_eval.evaluators import progress_bar
from clim_eval.metrics import ious
from clim_eval.reports import check_scored
from torch import Tensor
from torch.utils.data import Dataset

from flmm.grounders.grounder import SamplePreparer, ScoredMasks


@dataclass(frozen=True)
class EvaluationItem:
    """A sample ready for the grounder. prepared: by its `SamplePreparer`. masks: bool (N, H, W),
    the true ones at the image's own size."""

    record: GroundingSample
    prepared: Any
    masks: Tensor


class EvaluationItems(Dataset):
    """Samples `numbers` of a data set; those that are `done` are None, unusable ones their
    `BrokenSample`."""

    def __init__(
        self,
        data: Any,
        prepare: SamplePreparer,
        *,
        numbers: Sequence[int],
        done: Collection[str] = (),
    ):
        self.data = data
        self.prepare = prepare
        self.numbers = numbers
        self.done = done

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> EvaluationItem | BrokenSample | None:
        try:
            record = self.data[self.numbers[place]]
            if record.key in self.done:
                return None
            image, masks = record.load()
            prepared = self.prepare(record, image)
        except BrokenSample as fault:
            return fault
        return EvaluationItem(record, prepared, torch.from_numpy(masks))


class ItemGrounder(Protocol):
    """The interface of a `SampleGrounder` that may name samples that it cannot ground."""

    @property
    def prepare(self) -> SamplePreparer:
        """Prepares one sample, in a loading process."""
        ...

    def __call__(self, prepared: Sequence[Any]) -> Sequence[ScoredMasks | BrokenSample]:
        """Ground B prepared samples -> the masks, or the fault, of each."""
        ...


class ForSamples(Protocol):
    """The interface of a grounder for an evaluation."""

    def for_samples(self) -> ItemGrounder:
        """Return a grounder for the samples of one data set."""
        ...


class GroundingEvaluation:
    """Grounds every sample of a data set and counts overlaps.

    Nothing of full resolution outlives its batch.

    Args:
        grounder: makes the masks.
        data: samples by number, such as the readers of clim-data.
        batch_size: samples that are grounded at once.
        workers: processes that decode.
        limit: maximum number of samples; the first ones are scored.
        min_score: phrases with a lower score count as not found: their masks are empty.
    """

    def __init__(
        self,
        grounder: ForSamples,
        data: Any,
        *,
        batch_size: int = 1,
        workers: int = 0,
        limit: int | None = None,
        min_score: float = 0.0,
    ):
        self.grounder = grounder.for_samples()
        self.data = data
        self.batch_size = batch_size
        self.workers = workers
        self.min_score = min_score
        self.total = len(data) if limit is None else min(limit, len(data))
        self.skipped = SkipReport()
        self._seconds = 0.0
        self._timed = 0  # phrases

    def run(self, scores: MaskScores, *, bar: bool = True) -> SkipReport:
        """Score this rank's share of the samples that `scores` lacks; then join the scores of all
        ranks.

        Returns the faults of all ranks. Collective.
        """
        rank, world_size = Ranks.of_group()
        items = EvaluationItems(
            self.data,
            self.grounder.prepare,
            numbers=range(*rank_share(0, self.total, rank, world_size)),  # neighbours share images
            done=frozenset(scores.rows),
        )
        batches = load_in_workers(
            items,
            range(len(items)),
            workers=self.workers,
            batch_size=self.batch_size,
            collate=list,
        )
        total = -(-len(items) // self.batch_size)
        for batch in progress_bar(batches, total, "grounding", bar):
            self.skipped.extend(item for item in batch if isinstance(item, BrokenSample))
            usable = [item for item in batch if isinstance(item, EvaluationItem)]
            for item, found in zip(usable, self._timed_masks(usable), strict=True):
                if isinstance(found, BrokenSample):
                    self.skipped.add(found)
                    continue
                phrases = item.record.phrases
                logits = found.logits(self.min_score)
                scores.add(
                    item.record.key,
                    mask_overlaps(logits, item.masks.to(logits.device)),
                    is_plural=[phrase.is_plural for phrase in phrases],
                    is_thing=[phrase.is_thing for phrase in phrases],
                    is_present=[bool(phrase.objects) for phrase in phrases],
                    is_found=(logits > 0).flatten(1).any(1).tolist(),
                    scores=found.scores.tolist(),
                    **self.further(item, logits),
                )
        scores.gather()
        for faults in gather_objects(self.skipped.faults):
            self.skipped.extend(faults)
        times = gather_objects((self._seconds, self._timed))
        self._seconds, self._timed = (sum(values) for values in zip(*times, strict=True))
        check_scored(self.coverage(scores), "check the data and the folder of its images")
        return self.skipped

    def further(self, item: EvaluationItem, logits: Tensor) -> dict[str, list]:
        """Return further values of a sample, one for each phrase, from its logits (N, H, W)."""
        return {}

    @property
    def seconds_per_phrase(self) -> float:
        """Seconds that one process needs for a phrase, without loading images; nan if `run` found
        all samples scored already."""
        return self._seconds / self._timed if self._timed else float("nan")

    def _timed_masks(self, items: Sequence[EvaluationItem]) -> Sequence[ScoredMasks | BrokenSample]:
        begin = time.perf_counter()
        found = self.masks(items)
        made = [masks for masks in found if isinstance(masks, ScoredMasks)]
        for masks in made:
            masks.scores.tolist()  # the masks are then there, on a GPU, too
        self._seconds += time.perf_counter() - begin
        self._timed += sum(len(masks.scores) for masks in made)
        return found

    def coverage(self, scores: MaskScores) -> tuple[Coverage, ...]:
        """Return the coverage of `scores` in samples and phrases, with the skipped samples."""
        phrases = sum(len(row["unions"]) for row in scores.rows.values())
        return (
            Coverage.of("samples", len(scores), self.skipped.faults),
            Coverage.of("phrases", phrases, []),
        )

    def masks(self, items: Sequence[EvaluationItem]) -> Sequence[ScoredMasks | BrokenSample]:
        """Ground the phrases of each item; the fault of an item that cannot be grounded."""
        return self.grounder([item.prepared for item in items])

    def pictures(self, scores: MaskScores, *, count: int = 3) -> dict[str, Any]:
        """Draw {"best", "median", "worst"}: figures of `count` samples each, true masks next to
        those found."""
        from flmm.pictures.masks import scenes_figure

        ranked = ranked_keys(scores)
        middle = max(0, len(ranked) // 2 - count // 2)
        chosen = {
            "worst": ranked[:count],
            "median": ranked[middle : middle + count],
            "best": ranked[::-1][:count],
        }
        wanted = set(chain.from_iterable(chosen.values()))
        shown = dict(self._shown(wanted, scores))
        figures = {}
        for name in ("best", "median", "worst"):
            rows = [shown[key] for key in chosen[name] if key in shown]
            if rows:
                figures[name] = scenes_figure(*map(list, zip(*rows, strict=True)))
        return figures

    def _shown(self, wanted: Collection[str], scores: MaskScores) -> Iterator[tuple[str, tuple]]:
        """(key, (image, masks by title, phrases)) of the wanted samples."""
        for number in range(self.total):
            try:
                record = self.data[number]
            except BrokenSample:
                continue
            if record.key not in wanted:
                continue
            item = EvaluationItems(self.data, self.grounder.prepare, numbers=[number])[0]
            if not isinstance(item, EvaluationItem):
                continue
            (found,) = self.masks([item])
            if isinstance(found, BrokenSample):
                continue
            title = f"found, IoU {mean_iou(scores.rows[record.key]):.2f}"
            masks = {"true": item.masks.numpy(), title: found.binary(self.min_score).cpu().numpy()}
            yield (
                record.key,
                (record.load_image(), masks, [phrase.text for phrase in record.phrases]),
            )


def mean_iou(row: Mapping[str, Any]) -> float:
    """Return the mean IoU over the phrases of one sample's counts; 0 for an empty union."""
    return float(ious(np.array(row["intersections"]), np.array(row["unions"]), empty=0.0).mean())


def ranked_keys(scores: MaskScores) -> list[str]:
    """List the keys of all samples, the worst first; ties in the order of the keys."""
    return sorted(scores.rows, key=lambda key: (mean_iou(scores.rows[key]), key))


def report_scores(
    folder: str | Path,
    evaluation: GroundingEvaluation,
    scores: MaskScores,
    *,
    title: str,
    metrics: Mapping[str, float],
    config: Any,
    notes: Sequence[str] = (),
    pictures: int = 3,
) -> dict:
    """Write report.json, report.md and pictures into `folder`, and return the report.

    Call it on one rank.
    """
    figures = evaluation.pictures(scores, count=pictures) if pictures and len(scores) else {}
    skipped = evaluation.skipped
    return write_report(
        folder,
        title=title,
        metrics={
            **metrics,
            "samples": len(scores),
            "not_scored": skipped.total,
            "seconds_per_phrase": evaluation.seconds_per_phrase,
        },
        config=config,
        figures=figures,
        coverage=evaluation.coverage(scores),
        notes=notes,
    )
