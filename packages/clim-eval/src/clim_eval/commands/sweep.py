"""`clim-eval alpha`: one model at several weight interpolations, as a table and a picture of the
trade-off."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any

from clim_data.command_line import need_path
from clim_data.files import read_names
from clim_data.processes import Ranks
from clim_models import PRECISIONS, RegionModel, create_model, name_of_export

from clim_eval.commands.shared import (
    PROTOCOLS,
    check_report_folder,
    class_rows,
    command_config,
    embed_names,
    need_images,
    print_coverage,
    region_data,
    region_file,
    scored_counts,
)
from clim_eval.embeddings import TEMPLATES
from clim_eval.evaluators.alpha import (
    WeightPair,
    alpha_sweep,
    check_alphas,
    pareto_alphas,
    weights_of_checkpoints,
    weights_of_run,
)
from clim_eval.evaluators.cached import CachedItems
from clim_eval.evaluators.regions import RegionClassification
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.evaluators.sharing import EvaluationLoading
from clim_eval.evaluators.zeroshot import ZeroShotClassification
from clim_eval.model_loading import model_of_run, pick_device, templates_of_run
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.pictures.tradeoff import tradeoff_figure, words_of
from clim_eval.reports.coverage import Coverage
from clim_eval.reports.provenance import data_fingerprint
from clim_eval.reports.report import write_report
from clim_eval.reports.tables import metric_table, show_number

MISSING = {
    "regions": "region accuracy (--images with --panoptic-json or --instances-json)",
    "retrieval": "retrieval (--captions-json)",
    "zeroshot": "zero-shot classification (--class-images)",
}


def run_alpha(options: Namespace) -> None:
    """Evaluate a training at every one of --alphas, and print the alphas that no other one
    beats."""
    check_alphas(options.alphas)
    if not (region_file(options) or options.captions_json or options.class_images):
        raise ValueError(
            "nothing to evaluate: pass --images with --panoptic-json, --captions-json or both"
        )
    check_report_folder(options.out)
    if options.templates is None:
        named = templates_of_run(options.run_folder)
        options.templates = named if named in TEMPLATES else "vild"
    model, weights = _model_and_weights(options)
    sweep = SweepParts(options, model, weights)
    results = alpha_sweep(model, weights, options.alphas, sweep.evaluators, on_result=_print_result)
    config = command_config(options, model)  # by every rank: it compares their weights
    if Ranks.of_group().is_first:
        _finish_sweep(options, config, sweep, results)


class SweepParts:
    """The evaluators of a sweep, and the parts that all alphas share: data sets, decoded images,
    text features."""

    def __init__(self, options: Namespace, model: RegionModel, weights: WeightPair):
        self.options, self.model, self.weights = options, model, weights
        self.evaluators: dict[str, Any] = {}
        self.about: dict[str, dict] = {}  # evaluator -> fingerprint and counts of its data
        # Evaluator -> its coverage at each alpha.
        self.coverages: dict[str, list[tuple[Coverage, ...]]] = {}
        self._rows: dict[str, Any] = {}
        jobs = [
            ("regions", region_file(options), self._add_regions),
            ("retrieval", options.captions_json, self._add_retrieval),
            ("zeroshot", options.class_images, self._add_zeroshot),
        ]
        self.asked = [name for name, wanted, _ in jobs if wanted]
        self.loading = EvaluationLoading(progress=True)
        for _, wanted, add in jobs:
            if wanted:
                add()

    @property
    def coverage(self) -> list[Coverage]:
        """The coverage of every evaluator, at the last alpha."""
        found = []
        for name, of_alphas in self.coverages.items():
            found += [part.of_part(name) for part in of_alphas[-1]]
        return found

    def coverage_notes(self) -> list[str]:
        """Return a warning if a file was broken or repaired while the sweep ran."""
        changed = []
        for name, of_alphas in self.coverages.items():
            if any(coverage != of_alphas[0] for coverage in of_alphas):
                changed.append(name)
        if not changed:
            return []
        return [
            f"The alphas were measured on different data ({', '.join(changed)}): files changed "
            "while the sweep ran. Run it again before you compare them."
        ]

    def _loader(self, data: Any, batch_size: int) -> CachedItems:
        """Return a loader that keeps decoded items between alphas, within a share of --keep-gb."""
        budget = 1e9 * self.options.keep_gb / len(self.asked)
        return CachedItems(data, batch_size=batch_size, workers=self.options.workers, budget=budget)

    def _classes(self, kind: str, compute: Callable[[], Any]) -> Any:
        """Compute class embeddings, once unless the text tower was trained."""
        if self.weights.change_texts or kind not in self._rows:
            self._rows[kind] = compute()
        return self._rows[kind]

    def _note(self, name: str, coverage: tuple[Coverage, ...]) -> None:
        """Note the coverage of an evaluator at one more alpha."""
        self.coverages.setdefault(name, []).append(coverage)

    def _add_regions(self) -> None:
        """Add region classification."""
        options, data = self.options, region_data(self.options, self.model)
        if options.class_embeddings and self.weights.change_texts:
            raise ValueError(
                "the text tower was trained, so class embeddings follow alpha: leave "
                "--class-embeddings out"
            )
        loader = self._loader(data, options.batch_size)

        def evaluate() -> Mapping[str, float]:
            evaluator = RegionClassification(
                self.model,
                self._classes("regions", lambda: class_rows(options, self.model, data.class_names)),
                outputs=options.outputs,
                crops=options.crops,
                **PROTOCOLS[options.protocol][1],
                loading=self.loading,
            )
            rows = evaluator.collect(loader)
            self.about["regions"] = data_fingerprint([region_file(options)], rows.counts())
            self._note("regions", rows.coverage)
            return evaluator.summarize(rows)

        self.evaluators["regions"] = evaluate

    def _add_retrieval(self) -> None:
        """Add image-text retrieval."""
        from clim_data import ImageCaptions

        options, folder = self.options, self.options.retrieval_images or self.options.images
        if folder is None:
            raise ValueError(
                "where are the images of --captions-json? pass their folder with --images"
            )
        need_images(folder, "--retrieval-images" if options.retrieval_images else "--images")
        need_path(options.captions_json, "--captions-json")
        data = ImageCaptions(folder, options.captions_json, self.model.image_size[0])
        loader = self._loader(data, 64)
        retrieval = ImageTextRetrieval(
            self.model, keep_texts=not self.weights.change_texts, loading=self.loading
        )

        def evaluate() -> Mapping[str, float]:
            metrics = retrieval.run(loader)
            self._note("retrieval", retrieval.coverage)
            counts = {"images": retrieval.coverage[0].scored}
            self.about["retrieval"] = data_fingerprint([options.captions_json], counts)
            return metrics

        self.evaluators["retrieval"] = evaluate

    def _add_zeroshot(self) -> None:
        """Add zero-shot classification of whole images."""
        from clim_data.readers import class_images

        options = self.options
        names = read_names(options.names, "--names") if options.names else None
        data = class_images(options.class_images, self.model.image_size[0], names=names)
        loader = self._loader(data, 64)

        def evaluate() -> Mapping[str, float]:
            rows = self._classes(
                "zeroshot", lambda: embed_names(options, self.model, data.class_names)
            )
            evaluator = ZeroShotClassification(self.model, rows, loading=self.loading)
            metrics = evaluator.run(loader)
            self._note("zeroshot", evaluator.coverage)
            self.about["zeroshot"] = scored_counts(data.description(), evaluator.coverage)
            return metrics

        self.evaluators["zeroshot"] = evaluate


def main_metrics(results: Mapping[float, Mapping[str, float]]) -> dict[str, str]:
    """Return the main metric of each evaluator that ran: boxes of things, text-to-image recall,
    top-1."""
    first = next(iter(results.values()))
    regions = [name for name in first if name.startswith("regions.") and name.endswith(".mAcc1")]
    things = [name for name in regions if name.endswith(".thing.mAcc1")]

    found = {"retrieval": "retrieval.t2i.R@1", "zeroshot": "zeroshot.top1"}
    if regions:
        found = {"regions": [*things, *regions][0], **found}
    return {kind: name for kind, name in found.items() if name in first}


def _model_and_weights(options: Namespace) -> tuple[RegionModel, WeightPair]:
    """Load the model and the two weights between which it moves; fill in --model and --device."""
    options.device = pick_device(options.device)
    if options.run_folder is not None:
        if options.student or options.teacher:
            raise ValueError(
                "both a run and --student or --teacher: pass RUN, or the two checkpoints"
            )
        weights = weights_of_run(options.run_folder)
        options.model = options.model or model_of_run(options.run_folder, trusted=options.trust)
        model = create_model(options.model, pretrained=options.run_folder)
    elif options.student and options.teacher:
        options.model = options.model or _model_of_either(options)
        model, weights = weights_of_checkpoints(options.model, options.student, options.teacher)
    else:
        raise ValueError(
            "what to interpolate? pass the run folder of a training, or --student and --teacher"
        )
    # Both are read in float32; the mixture is rounded to --precision once.
    return model.to(device=options.device, dtype=PRECISIONS[options.precision]), weights


def _model_of_either(options: Namespace) -> str:
    """Return the name of the model that --student or --teacher knows."""
    # If one folder names no model, the other one may; a name that may bring code is refused in
    # either.
    named = name_of_export(options.student, trusted=options.trust)
    return named or model_of_run(options.teacher, trusted=options.trust)


def _print_result(alpha: float, metrics: Mapping[str, float]) -> None:
    """Print the main metrics of one alpha, on rank 0."""
    if Ranks.of_group().is_first:
        shown = [
            f"{name} {show_number(name, metrics[name])}"
            for name in main_metrics({alpha: metrics}).values()
        ]
        print(f"alpha {alpha:g}: {', '.join(shown)}", flush=True)


def _finish_sweep(
    options: Namespace, config: dict, sweep: SweepParts, results: dict[float, dict[str, float]]
) -> None:
    """Print the table of all alphas, and write the report."""
    mains = main_metrics(results)
    choices = pareto_alphas(results, list(mains.values()))
    notes = [*sweep_notes(results, mains, choices), *sweep.coverage_notes()]

    arms = {f"alpha {alpha:g}": metrics for alpha, metrics in results.items()}
    print(metric_table(arms), *notes, sep="\n\n")
    print_coverage(sweep.coverage)
    if not options.out:
        return

    name = Path(options.run_folder or options.student).name
    write_report(
        options.out,
        title=f"Weight interpolation of {name}",
        metrics=arms,
        config={**config, "pareto": choices},
        data=sweep.about,
        coverage=sweep.coverage,
        figures=sweep_figures(results, mains, choices, title=name),
        notes=notes,
    )
    print(f"report: {options.out / 'report.md'}")


def sweep_notes(
    results: Mapping[float, Mapping[str, float]], mains: Mapping[str, str], choices: list[float]
) -> list[str]:
    """Describe the result of the sweep in words: the alphas that no other one beats, the best alpha
    of each main metric, and the metrics that were not measured."""
    listed = ", ".join(f"{alpha:g}" for alpha in choices) or "none"
    notes = [f"Alphas that no other one beats in {' and '.join(mains.values())}: {listed}."]
    for metric in mains.values():
        measured = {
            alpha: values[metric]
            for alpha, values in results.items()
            if not isnan(values.get(metric, nan))
        }
        if measured:
            best = max(measured, key=measured.__getitem__)
            notes[0] += f" Best {metric}: {show_number(metric, measured[best])} at alpha {best:g}."
        notes[0] += "".join(
            f" alpha {alpha:g} has no {metric}." for alpha in results if alpha not in measured
        )
    absent = [text for kind, text in MISSING.items() if kind not in mains]
    if absent:
        notes.append(
            f"Not measured: {'; '.join(absent)}. A choice of alpha that ignores it may cost it."
        )
    return notes


def sweep_figures(
    results: Mapping[float, Mapping[str, float]],
    mains: Mapping[str, str],
    choices: list[float],
    *,
    title: str,
) -> dict[str, Any]:
    """Draw region accuracy against each measured image-level ability, alphas at the points; bars if
    there is but one."""
    label = {alpha: f"{alpha:g}" for alpha in results}
    if len(mains) < 2:
        arms = {f"alpha {label[alpha]}": dict(metrics) for alpha, metrics in results.items()}
        return {"alphas": accuracy_bars(arms, metrics=list(mains.values()), title=title)}

    first, *others = mains.values()
    figures = {}
    for other in others:
        points = {}
        for alpha, metrics in results.items():
            points[label[alpha]] = (metrics.get(other, nan), metrics.get(first, nan))

        figures[f"{first} against {other}"] = tradeoff_figure(
            {"": points},
            x_name=words_of(other),
            y_name=words_of(first),
            chosen={"": [label[alpha] for alpha in choices]},
            title=f"{title}: weight interpolation (labels: alpha)",
        )
    return figures
