"""Region classification, retrieval and zero-shot evaluation of RegionModels, with reports and pictures."""

from clim_eval.accuracy import class_accuracy_table, label_ranks, mean_class_accuracy, top_k_accuracy
from clim_eval.pictures import accuracy_bars, similarity_figure
from clim_eval.provenance import data_fingerprint, package_versions, weights_fingerprint
from clim_eval.regions import RegionClassification, RegionRows
from clim_eval.report import combine_reports, read_report, write_report
from clim_eval.retrieval import ImageTextRetrieval, ZeroShotClassification
from clim_eval.version import __version__

__all__ = [
    "ImageTextRetrieval",
    "RegionClassification",
    "RegionRows",
    "ZeroShotClassification",
    "__version__",
    "accuracy_bars",
    "class_accuracy_table",
    "combine_reports",
    "data_fingerprint",
    "label_ranks",
    "mean_class_accuracy",
    "package_versions",
    "read_report",
    "similarity_figure",
    "top_k_accuracy",
    "weights_fingerprint",
    "write_report",
]
