"""The figures of a model in a comparison, and the pseudo labels that some arms train on."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from clim_data.files import write_json
from clim_eval import (
    EvaluationLoading,
    ImageTextRetrieval,
    RegionClassification,
    RegionRows,
    WordsInScenes,
    ZeroShotClassification,
    collect_in_one_pass,
)
from clim_eval.labelling import PseudoLabelOptions, pseudo_label
from clim_models import RegionModel

from clim_train.experiments.comparison.arms import ArmOptions
from clim_train.experiments.comparison.data import (
    ComparisonData,
    Metrics,
    RegionSet,
    TrainingData,
)

OUTPUTS = ("boxes", "masks")
"""Default readouts of a region."""


class Measurement:
    """The measurement of all figures of a model.

    They are {"GROUP.READOUT.all.mAcc1", "GROUP.pointing", "GROUP.naming.boxes",
    "retrieval.t2i.R@1", "zeroshot.GROUP.top1", ...}. Texts are encoded in the first call only,
    since every arm keeps the text tower frozen.
    """

    def __init__(
        self,
        model: RegionModel,
        data: ComparisonData,
        *,
        outputs: Sequence[str] = OUTPUTS,
        batch_size: int = 16,
        workers: int = 0,
    ) -> None:
        self.model = model
        self.data = data
        self.outputs = tuple(outputs)
        self.batch_size = batch_size
        self.workers = workers
        self.retrieval = {
            group: ImageTextRetrieval(
                model, batch_size=batch_size, keep_texts=True, workers=workers
            )
            for group in data.captions
        }

    def run(self, *, crops: bool) -> Metrics:
        """Measure everything.

        Args:
            crops: also classify each region from its own crop, one more pass per region, as the
                reference.
        """
        found: Metrics = {}
        for part in self.data.regions:
            found |= self._regions(part, crops)

        for group, evaluator in self.retrieval.items():
            prefix = f"retrieval.{group}." if group else "retrieval."
            figures = evaluator.run(self.data.captions[group])
            found |= {f"{prefix}{name}": value for name, value in figures.items()}

        for group, labelled in self.data.zeroshot.items():
            zeroshot = ZeroShotClassification(
                self.model,
                labelled.embeddings,
                batch_size=4 * self.batch_size,
                workers=self.workers,
            )
            figures = zeroshot.run(labelled.images)
            found |= {f"zeroshot.{group}.{name}": value for name, value in figures.items()}
        return found

    def _regions(self, part: RegionSet, crops: bool) -> Metrics:
        """Classify, point at and name the regions of one set, from one pass; every group is
        summarised from the same answers."""
        loading = EvaluationLoading(self.batch_size, self.workers)
        classes = RegionClassification(
            self.model, part.embeddings, outputs=self.outputs, crops=crops, loading=loading
        )
        words = words_evaluator(self.model, part, crops=crops, loading=loading)
        rows, scenes = collect_in_one_pass(part.scenes, [classes, words])

        found: Metrics = {}
        for group, labels in part.groups.items():
            figures = classes.summarize(rows_with_labels(rows, labels))
            figures |= words.summarize(scenes, labels)
            found |= {f"{group}.{name}": value for name, value in figures.items()}
        return found


def measure_words(model: RegionModel, part: RegionSet) -> Metrics:
    """Return pointing and naming among the words of each scene: {"GROUP.pointing", ...}."""
    evaluator = words_evaluator(model, part, loading=EvaluationLoading(batch_size=16))
    scenes = evaluator.collect(part.scenes)
    found: Metrics = {}
    for group, labels in part.groups.items():
        figures = evaluator.summarize(scenes, labels)
        found |= {f"{group}.{name}": value for name, value in figures.items()}
    return found


def words_evaluator(
    model: RegionModel, part: RegionSet, *, crops: bool = False, loading: EvaluationLoading
) -> WordsInScenes:
    """Return the evaluator of pointing and naming with the words of one set."""
    words = part.embeddings if part.words is None else part.words
    return WordsInScenes(model, words, crops=crops, loading=loading)


def rows_with_labels(rows: RegionRows, labels: Sequence[int]) -> RegionRows:
    """Return the regions whose true class is one of `labels`.

    The classes that they were compared with stay the same.
    """
    chosen = np.isin(rows.labels, np.asarray(list(labels)))
    return replace(
        rows,
        image_ids=rows.image_ids[chosen],
        labels=rows.labels[chosen],
        is_thing=rows.is_thing[chosen],
        areas=rows.areas[chosen],
        ranks={readout: values[chosen] for readout, values in rows.ranks.items()},
        similarities={readout: values[chosen] for readout, values in rows.similarities.items()},
    )


def pseudo_labels(options: ArmOptions, data: TrainingData, output: Path) -> float:
    """Let the start model name the boxes of the training scenes with nouns of their captions.

    This is `clim-eval pseudo-label`. A second call does nothing.

    Returns:
        The seconds that writing `output`, a COCO json, took.
    """
    cost = output.with_suffix(".cost.json")
    if not (output.exists() and cost.exists()):
        begin = time.monotonic()
        pseudo_label(_label_options(options, data, output))
        write_json(cost, {"seconds": time.monotonic() - begin}, indent=2)
    return float(json.loads(cost.read_text())["seconds"])


def _label_options(options: ArmOptions, data: TrainingData, output: Path) -> PseudoLabelOptions:
    assert data.proposals is not None  # arms that need labels have both
    assert data.nouns is not None
    return PseudoLabelOptions(
        images=data.scenes,
        boxes=data.proposals,
        nouns=data.nouns,
        out=output,
        model=options.model.name,
        pretrained=options.model.pretrained,
        device=None if options.device == "auto" else options.device,
        captions_json=data.captions,
        workers=options.workers,
        overwrite=True,
    )
