"""Region classification, retrieval and zero-shot evaluation of RegionModels, with reports and pictures."""

from importlib import import_module

from clim_eval.accuracy import class_accuracy_table, label_ranks, mean_class_accuracy, top_k_accuracy
from clim_eval.pictures import accuracy_bars, similarity_figure, tradeoff_figure
from clim_eval.provenance import data_fingerprint, package_versions, weights_fingerprint
from clim_eval.regions import RegionClassification, RegionRows
from clim_eval.report import combine_reports, read_report, write_report
from clim_eval.retrieval import ImageTextRetrieval, ZeroShotClassification
from clim_eval.version import __version__

# Loaded on first use: they import clim_models, and with it open_clip, which takes seconds.
_LATER = {
    "MaskScores": "mask_scores",
    "WeightEnds": "alpha",
    "alpha_sweep": "alpha",
    "average_recall": "narrative_grounding",
    "checkpoint_ends": "alpha",
    "class_images": "labelled_images",
    "encode_texts": "show",
    "load_class_embeddings": "embeddings",
    "locate_texts": "show",
    "mask_overlaps": "mask_scores",
    "narrative_metrics": "narrative_grounding",
    "narrative_scores": "narrative_grounding",
    "pareto_alphas": "alpha",
    "referring_metrics": "referring",
    "referring_scores": "referring",
    "run_ends": "alpha",
    "save_class_embeddings": "embeddings",
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
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
