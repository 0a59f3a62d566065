"""Region classification, retrieval and zero-shot evaluation of RegionModels, with reports and
pictures."""

from importlib import import_module

from clim_eval.evaluators.regions import RegionClassification, RegionRows
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.evaluators.zeroshot import ZeroShotClassification
from clim_eval.metrics.accuracy import (
    class_accuracy_table,
    label_ranks,
    mean_class_accuracy,
    top_k_accuracy,
)
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.pictures.similarity import similarity_figure
from clim_eval.pictures.tradeoff import tradeoff_figure
from clim_eval.reports.provenance import data_fingerprint, package_versions, weights_fingerprint
from clim_eval.reports.report import combine_reports, read_report, write_report
from clim_eval.version import __version__

# Loaded on first use: they import clim_models, and with it open_clip, which takes seconds.
_LATER = {
    "MaskScores": "clim_eval.evaluators.mask_scores",
    "WeightEnds": "clim_eval.evaluators.alpha",
    "alpha_sweep": "clim_eval.evaluators.alpha",
    "average_recall": "clim_eval.metrics.narratives",
    "checkpoint_ends": "clim_eval.evaluators.alpha",
    "class_images": "clim_data.readers.labelled_images",
    "encode_texts": "clim_eval.pictures.locate",
    "load_class_embeddings": "clim_eval.embeddings",
    "locate_texts": "clim_eval.pictures.locate",
    "mask_overlaps": "clim_eval.metrics.masks",
    "narrative_metrics": "clim_eval.metrics.narratives",
    "narrative_scores": "clim_eval.evaluators.phrase_masks",
    "pareto_alphas": "clim_eval.evaluators.alpha",
    "referring_metrics": "clim_eval.metrics.referring",
    "referring_scores": "clim_eval.evaluators.phrase_masks",
    "run_ends": "clim_eval.evaluators.alpha",
    "save_class_embeddings": "clim_eval.embeddings",
}

__all__ = [
    "ImageTextRetrieval",
    "MaskScores",
    "RegionClassification",
    "RegionRows",
    "WeightEnds",
    "ZeroShotClassification",
    "__version__",
    "accuracy_bars",
    "alpha_sweep",
    "average_recall",
    "checkpoint_ends",
    "class_accuracy_table",
    "class_images",
    "combine_reports",
    "data_fingerprint",
    "encode_texts",
    "label_ranks",
    "load_class_embeddings",
    "locate_texts",
    "mask_overlaps",
    "mean_class_accuracy",
    "narrative_metrics",
    "narrative_scores",
    "package_versions",
    "pareto_alphas",
    "read_report",
    "referring_metrics",
    "referring_scores",
    "run_ends",
    "save_class_embeddings",
    "similarity_figure",
    "top_k_accuracy",
    "tradeoff_figure",
    "weights_fingerprint",
    "write_report",
]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
