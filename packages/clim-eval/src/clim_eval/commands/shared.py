"""Steps that several commands of `clim-eval` share: find model and data, check paths, write a
report."""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from clim_data.command_line import need_path
from clim_data.files import check_output_folder
from clim_data.processes import Ranks, gather_objects

from clim_eval.evaluators.sharing import EvaluationLoading
from clim_eval.model_loading import load_chosen_model, pick_device, reading_px
from clim_eval.reports.coverage import Coverage
from clim_eval.reports.provenance import weights_fingerprint
from clim_eval.reports.report import write_report
from clim_eval.reports.tables import metric_table

if TYPE_CHECKING:
    from clim_data import InstanceRegions, PanopticRegions
    from clim_models import RegionModel
    from clim_models.detection import TwoStageDetector
    from matplotlib.figure import Figure

    from clim_eval.class_vectors import ClassSource

# Options of the data set and of the evaluator: ours, and those behind the figures in papers (class
# means in half precision, masks resized without antialias, stuff boxes one pixel short, Pillow's
# resize, 100 segments per image).
PROTOCOLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact": ({}, {"rounding": "exact"}),
    "published": (
        {"antialias": False, "resize": "pil", "max_regions": 100, "stuff_box": "inclusive"},
        {"rounding": "fp16"},
    ),
}


def load_model(options: Namespace) -> "RegionModel":
    """Load the model of --model, --pretrained, --precision and --device, and fill in the options
    that were not given."""
    options.device = pick_device(options.device)
    model = load_chosen_model(options)
    options.model = model.name
    options.pretrained = options.pretrained or model.pretrained
    return model


def open_chosen_detector(options: Namespace) -> "TwoStageDetector":
    """Return the detector of --checkpoint on --device."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_models.detection import open_detector

    options.device = pick_device(options.device)
    return open_detector(options.checkpoint, device=options.device, trusted=options.trust)


def region_file(options: Namespace) -> Path:
    """Return the annotation file of the regions: whichever option was given."""
    return options.panoptic_json or options.instances_json


def region_data(options: Namespace, model: "RegionModel") -> "InstanceRegions | PanopticRegions":
    """Open the PanopticRegions or InstanceRegions of --images and --panoptic-json or
    --instances-json."""
    from clim_data import InstanceRegions, PanopticRegions

    need_images(options.images, "--images")
    need_path(
        region_file(options), "--panoptic-json" if options.panoptic_json else "--instances-json"
    )
    sizes = {
        "image_px": reading_px(model, options.image_px),
        "stride": model.stride,
        "crop_px": model.image_size[0] if options.crops else None,
        **PROTOCOLS[options.protocol][0],
    }
    if options.instances_json:
        sizes.pop("stuff_box", None)  # instances have no stuff
        masks = any(name.startswith("masks") for name in options.outputs)
        return InstanceRegions(options.images, options.instances_json, masks=masks, **sizes)
    folder = options.panoptic_dir or options.panoptic_json.with_suffix("")
    need_path(folder, "--panoptic-dir", folder=True)
    return PanopticRegions(options.images, options.panoptic_json, folder, **sizes)


def need_images(images: str, option: str) -> None:
    """Check that an option names a folder of images, or shards.

    Raises:
        ValueError: the option is missing.
        FileNotFoundError: there is nothing of that name.
    """
    is_pattern = bool(images) and any(sign in images for sign in "*?[{:")
    if is_pattern or (images and Path(images).exists()):  # readers check the contents
        return
    need_path(Path(images) if images else None, option, folder=True)


def class_rows(options: Namespace, model: "RegionModel", names: Sequence[str]) -> torch.Tensor:
    """Return (K + M, C) rows of --vocabulary or --class-embeddings, or compute (K, C).

    The last M are phrases under `not` of a vocabulary.
    """
    return class_source(options).rows(model, names)


def embed_names(options: Namespace, model: "RegionModel", names: Sequence[str]) -> torch.Tensor:
    """Embed names with --templates, or read them from --cache: (K, C) unit rows."""
    return replace(class_source(options), vocabulary=None, embeddings=None).rows(model, names)


def class_source(options: Namespace) -> "ClassSource":
    """Return --vocabulary, --class-embeddings, --templates and --cache as one object."""
    from clim_eval.class_vectors import ClassSource
    from clim_eval.embeddings import cache_folder

    return ClassSource(
        vocabulary=getattr(options, "vocabulary", None),
        embeddings=getattr(options, "class_embeddings", None),
        templates=options.templates,
        cache=None if options.no_cache else options.cache or cache_folder(),
    )


def finish(
    options: Namespace,
    *,
    title: str,
    metrics: dict,
    config: dict,
    data: dict,
    coverage: Sequence[Coverage],
    figure: Callable[[], "Figure"],
) -> None:
    """Print the table and its coverage, and write the report, on rank 0."""
    if not Ranks.of_group().is_first:
        return

    print(metric_table(metrics))
    print_coverage(coverage)
    if options.out:
        write_report(
            options.out,
            title=title,
            metrics=metrics,
            config=config,
            data=data,
            coverage=coverage,
            figures={"accuracy": figure()},
        )
        print(f"report: {options.out / 'report.md'}")


def scored_counts(data: dict, coverage: Sequence[Coverage]) -> dict:
    """Return the description of a data set with the counts of the scored items, not of the list."""
    return {**data, "counts": {**data["counts"], **{part.unit: part.scored for part in coverage}}}


def print_coverage(coverage: Sequence[Coverage]) -> None:
    """Print the number of scored items, and the skipped items with their reasons."""
    for part in coverage:
        print("\n".join(part.lines()))


def check_report_folder(folder: Path | None) -> None:
    """Create the folder of --out before the work, so that a folder without write access is noticed
    early.

    Raises:
        ValueError: it names a file.
        OSError: it cannot be written.
    """
    if folder is None:
        return

    check_output_folder(folder, "--out")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def run_loading(options: Namespace) -> EvaluationLoading:
    """Return how --batch-size and --workers load the data."""
    return EvaluationLoading(batch_size=options.batch_size, workers=options.workers, progress=True)


def command_config(options: Namespace, model: "RegionModel") -> dict:
    """Return the options of the command and the hash of the weights in use."""
    weights = gather_objects(weights_fingerprint(model))
    if len(set(weights)) > 1:
        raise ValueError(
            f"the ranks hold different weights {weights}: give all of them the same --pretrained"
        )
    chosen = {name: value for name, value in vars(options).items() if name not in ("run", "out")}
    return {**chosen, "ranks": len(weights), "weights": weights[0]}
