"""Region classification, retrieval and zero-shot evaluation, with reports and pictures.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

from clim_eval.version import __version__ as __version__

if TYPE_CHECKING:
    from clim_data.readers import class_images as class_images

    from clim_eval.embeddings import (
        cache_folder as cache_folder,
        embed_with_bar as embed_with_bar,
        load_class_embeddings as load_class_embeddings,
        save_class_embeddings as save_class_embeddings,
    )
    from clim_eval.evaluators.alpha import (
        WeightPair as WeightPair,
        alpha_sweep as alpha_sweep,
        pareto_alphas as pareto_alphas,
        weights_of_checkpoints as weights_of_checkpoints,
        weights_of_run as weights_of_run,
    )
    from clim_eval.evaluators.mask_scores import MaskScores as MaskScores
    from clim_eval.evaluators.phrase_masks import (
        entity_scores as entity_scores,
        generalized_scores as generalized_scores,
        narrative_scores as narrative_scores,
        presence_scores as presence_scores,
        reasoning_scores as reasoning_scores,
        referring_scores as referring_scores,
    )
    from clim_eval.evaluators.region_pass import collect_in_one_pass as collect_in_one_pass
    from clim_eval.evaluators.regions import (
        RegionClassification as RegionClassification,
        RegionRows as RegionRows,
    )
    from clim_eval.evaluators.retrieval import ImageTextRetrieval as ImageTextRetrieval
    from clim_eval.evaluators.sharing import EvaluationLoading as EvaluationLoading
    from clim_eval.evaluators.words import SceneWords as SceneWords, WordsInScenes as WordsInScenes
    from clim_eval.evaluators.zeroshot import ZeroShotClassification as ZeroShotClassification
    from clim_eval.metrics.accuracy import (
        class_accuracy_table as class_accuracy_table,
        label_ranks as label_ranks,
        mean_class_accuracy as mean_class_accuracy,
        top_k_accuracy as top_k_accuracy,
    )
    from clim_eval.metrics.masks import mask_overlaps as mask_overlaps
    from clim_eval.metrics.narratives import (
        average_recall as average_recall,
        narrative_metrics as narrative_metrics,
    )
    from clim_eval.metrics.referring import referring_metrics as referring_metrics
    from clim_eval.pictures.bars import accuracy_bars as accuracy_bars
    from clim_eval.pictures.locate import encode_texts as encode_texts, locate_texts as locate_texts
    from clim_eval.pictures.similarity import similarity_figure as similarity_figure
    from clim_eval.pictures.tradeoff import tradeoff_figure as tradeoff_figure
    from clim_eval.reports.coverage import Coverage as Coverage
    from clim_eval.reports.provenance import (
        data_fingerprint as data_fingerprint,
        package_versions as package_versions,
        weights_fingerprint as weights_fingerprint,
    )
    from clim_eval.reports.report import (
        combine_reports as combine_reports,
        read_report as read_report,
        write_report as write_report,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Coverage": "clim_eval.reports.coverage",
            "EvaluationLoading": "clim_eval.evaluators.sharing",
            "ImageTextRetrieval": "clim_eval.evaluators.retrieval",
            "MaskScores": "clim_eval.evaluators.mask_scores",
            "RegionClassification": "clim_eval.evaluators.regions",
            "RegionRows": "clim_eval.evaluators.regions",
            "SceneWords": "clim_eval.evaluators.words",
            "WeightPair": "clim_eval.evaluators.alpha",
            "WordsInScenes": "clim_eval.evaluators.words",
            "ZeroShotClassification": "clim_eval.evaluators.zeroshot",
            "accuracy_bars": "clim_eval.pictures.bars",
            "alpha_sweep": "clim_eval.evaluators.alpha",
            "average_recall": "clim_eval.metrics.narratives",
            "cache_folder": "clim_eval.embeddings",
            "class_accuracy_table": "clim_eval.metrics.accuracy",
            "class_images": "clim_data.readers",
            "collect_in_one_pass": "clim_eval.evaluators.region_pass",
            "combine_reports": "clim_eval.reports.report",
            "data_fingerprint": "clim_eval.reports.provenance",
            "embed_with_bar": "clim_eval.embeddings",
            "encode_texts": "clim_eval.pictures.locate",
            "entity_scores": "clim_eval.evaluators.phrase_masks",
            "generalized_scores": "clim_eval.evaluators.phrase_masks",
            "label_ranks": "clim_eval.metrics.accuracy",
            "load_class_embeddings": "clim_eval.embeddings",
            "locate_texts": "clim_eval.pictures.locate",
            "mask_overlaps": "clim_eval.metrics.masks",
            "mean_class_accuracy": "clim_eval.metrics.accuracy",
            "narrative_metrics": "clim_eval.metrics.narratives",
            "narrative_scores": "clim_eval.evaluators.phrase_masks",
            "package_versions": "clim_eval.reports.provenance",
            "pareto_alphas": "clim_eval.evaluators.alpha",
            "presence_scores": "clim_eval.evaluators.phrase_masks",
            "read_report": "clim_eval.reports.report",
            "reasoning_scores": "clim_eval.evaluators.phrase_masks",
            "referring_metrics": "clim_eval.metrics.referring",
            "referring_scores": "clim_eval.evaluators.phrase_masks",
            "save_class_embeddings": "clim_eval.embeddings",
            "similarity_figure": "clim_eval.pictures.similarity",
            "top_k_accuracy": "clim_eval.metrics.accuracy",
            "tradeoff_figure": "clim_eval.pictures.tradeoff",
            "weights_fingerprint": "clim_eval.reports.provenance",
            "weights_of_checkpoints": "clim_eval.evaluators.alpha",
            "weights_of_run": "clim_eval.evaluators.alpha",
            "write_report": "clim_eval.reports.report",
        },
        renamed={
            "WeightEnds": "WeightPair",
            "checkpoint_ends": "weights_of_checkpoints",
            "run_ends": "weights_of_run",
        },
    )
