"""What each command of ``clim-eval`` does with its parsed options."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from clim_eval.pictures import accuracy_bars, similarity_figure
from clim_eval.provenance import data_fingerprint, weights_fingerprint
from clim_eval.ranks import gather_parts, rank_and_world
from clim_eval.regions import RegionClassification
from clim_eval.report import combine_reports, metric_table, read_report, write_png, write_report
from clim_eval.retrieval import ImageTextRetrieval

# Options of the data set and of the evaluator: ours, and those behind the figures in papers (class means in half
# precision, masks resized without antialias, stuff boxes one pixel short, Pillow's resize, 100 segments per image).
PROTOCOLS = {
    "exact": ({}, {"rounding": "exact"}),
    "published": (
        {"antialias": False, "resize": "pil", "max_regions": 100, "stuff_box": "inclusive"},
        {"rounding": "fp16"},
    ),
}


def run_regions(options: Namespace) -> None:
    """Region classification on a COCO-style data set."""
    from clim_eval.embeddings import load_class_embeddings

    _need(options.images, "--images", folder=True)
    annotations = options.panoptic_json or options.instances_json
    _need(annotations, "--panoptic-json" if options.panoptic_json else "--instances-json")
    model = _load_model(options)
    data = _region_data(options, model)
    if options.class_embeddings:
        classes = load_class_embeddings(options.class_embeddings, data.class_names).to(model.device)
    else:
        classes = _embed(options, model, data.class_names)
    evaluator = RegionClassification(
        model,
        classes,
        outputs=options.outputs,
        crops=options.crops,
        **PROTOCOLS[options.protocol][1],
        batch_size=options.batch_size,
        workers=options.workers,
        progress=True,
    )
    rows = evaluator.collect(data)
    metrics = evaluator.summarize(rows)
    _tell_skipped(rows.unreadable)
    if not metrics:
        raise ValueError(f"{annotations} has no region of 64 to 1048576 pixels: check that it belongs to --images")
    readouts = {name: {} for name in rows.ranks}
    for name, value in metrics.items():
        readout, _, rest = name.partition(".")
        readouts[readout][rest] = value
    shown = [
        name for name in ("thing.mAcc1", "stuff.mAcc1", "thing.mAcc5", "stuff.mAcc5") if f"boxes.{name}" in metrics
    ]
    _finish(
        options,
        title=f"Region classification of {options.model}",
        metrics=metrics,
        config=_config(options, model),
        data=data_fingerprint([annotations], {**rows.counts(), "unreadable": len(rows.unreadable)}),
        figure=lambda: accuracy_bars(readouts, metrics=shown, title=f"{options.model}: mean class accuracy"),
    )


def run_retrieval(options: Namespace) -> None:
    """Image-text retrieval on COCO-style captions."""
    from clim_data import ImageCaptions

    _need(options.images, "--images", folder=True)
    _need(options.captions_json, "--captions-json")
    model = _load_model(options)
    data = ImageCaptions(options.images, options.captions_json, options.image_px or model.image_size[0])
    retrieval = ImageTextRetrieval(model, batch_size=options.batch_size, workers=options.workers, progress=True)
    left_out = list(data.skipped.entries)  # before the run adds files that turn out to be broken
    metrics = retrieval.run(data)
    _tell_skipped([*left_out, *(f"image {image_id}" for image_id in retrieval.skipped)])
    directions = {
        title: {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith(start)}
        for start, title in (("i2t", "image to text"), ("t2i", "text to image"))
    }
    _finish(
        options,
        title=f"Image-text retrieval of {options.model}",
        metrics=metrics,
        config=_config(options, model),
        data=data_fingerprint([options.captions_json], {"images": len(data) - len(retrieval.skipped)}),
        figure=lambda: accuracy_bars(directions, title=f"{options.model}: retrieval recall"),
    )


def run_embed(options: Namespace) -> None:
    """Class embeddings to a file."""
    from clim_eval.embeddings import save_class_embeddings

    if options.names:
        _need(options.names, "--names")
        names = [line.strip() for line in options.names.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        _need(options.categories_json, "--categories-json")
        content = json.loads(options.categories_json.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content.get("categories"):
            raise ValueError(f"{options.categories_json} has no categories: pass a COCO-style annotation file")
        names = [category["name"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    model = _load_model(options)
    embeddings = _embed(options, model, names)
    save_class_embeddings(options.out, embeddings, names, options.templates)
    print(f"{len(names)} classes x {embeddings.shape[1]} channels: {options.out}")


def run_report(options: Namespace) -> None:
    """Several reports side by side."""
    reports = {}
    for path in options.reports:
        name = path.parent.name if path.name == "report.json" else path.name.removesuffix(".json")
        name = name or str(path)
        if name in reports:  # two runs of one name are told apart by their folders
            name = str(path)
        reports[name] = read_report(path)
    arms = combine_reports(reports)
    print(metric_table(arms))
    if options.out:
        fractions = [name for name in dict.fromkeys(n for arm in arms.values() for n in arm) if _is_main(name)]
        figures = {"comparison": accuracy_bars(arms, metrics=fractions, title=options.title)} if fractions else {}
        config = {name: report["config"] for name, report in reports.items()}
        data = {name: report.get("data") for name, report in reports.items()}
        write_report(options.out, title=options.title, metrics=arms, config=config, figures=figures, data=data)
        print(f"report: {options.out / 'report.md'}")


def run_show(options: Namespace) -> None:
    """Similarity maps of texts on one image."""
    from clim_data import decode_rgb
    from clim_models.prompts import class_prompts

    from clim_eval.embeddings import TEMPLATES
    from clim_eval.show import encode_texts, locate_texts

    _need(options.image, "IMAGE")
    image = decode_rgb(options.image)
    model = _load_model(options)
    prompts = (lambda text: class_prompts(text, TEMPLATES[options.templates])) if options.templates else None
    texts = encode_texts(model, options.texts, prompts)
    found = locate_texts(model, image, texts, image_px=options.image_px or 64 * model.stride, readout=options.readout)
    figure = similarity_figure(
        image,
        found.maps,
        options.texts,
        boxes=found.boxes if options.draw == "box" else None,
        masks=found.masks if options.draw == "mask" else None,
        scores=found.scores,
    )
    out = options.out or Path(f"{options.image.stem}.similarity.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, figure)
    height, width = image.shape[1:]
    for text, score, box in zip(options.texts, found.scores, found.boxes, strict=True):
        x0, y0, x1, y1 = (round(v) for v in (box * [width, height, width, height]).tolist())
        print(f"{text}: cosine {score:.3f}, box x {x0}-{x1}, y {y0}-{y1} px")
    print(f"picture: {out}")


def _load_model(options: Namespace):
    from clim_models import create_model

    options.model = options.model or _model_of_run(options.pretrained)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)  # without --pretrained, every rank and every run gets the same random weights
    return create_model(
        options.model, pretrained=options.pretrained, precision=options.precision, device=options.device
    )


def _model_of_run(pretrained: str | None) -> str:
    """The model name in the config.json of an export, or of the one inside a run folder."""
    from clim_models.checkpoint import export_folder

    described = export_folder(Path(pretrained)) / "config.json" if pretrained else None
    name = json.loads(described.read_text()).get("name") if described and described.is_file() else None
    if not name:
        raise ValueError(
            "which model? pass --model NAME, or --pretrained RUN with the folder of a finished run "
            "(`clim-train export RUN` finishes a stopped one)"
        )
    return name


def _region_data(options: Namespace, model):
    from clim_data import InstanceRegions, PanopticRegions

    sizes = {
        "image_px": options.image_px or 64 * model.stride,
        "stride": model.stride,
        "crop_px": model.image_size[0] if options.crops else None,
        **PROTOCOLS[options.protocol][0],
    }
    if options.instances_json:
        sizes.pop("stuff_box", None)  # instances have no stuff
        masks = any(name.startswith("masks") for name in options.outputs)
        return InstanceRegions(options.images, options.instances_json, masks=masks, **sizes)
    folder = options.panoptic_dir or options.panoptic_json.with_suffix("")
    _need(folder, "--panoptic-dir", folder=True)
    return PanopticRegions(options.images, options.panoptic_json, folder, **sizes)


def _embed(options: Namespace, model, names: Sequence[str]) -> torch.Tensor:
    from clim_eval.embeddings import cache_folder, embed_with_bar

    cache = None if options.no_cache else options.cache or cache_folder()
    return embed_with_bar(model, names, options.templates, cache=cache, show=rank_and_world()[0] == 0)


def _finish(options: Namespace, *, title: str, metrics: dict, config: dict, data: dict, figure) -> None:
    """Print the table and write the report, on rank 0."""
    if rank_and_world()[0] != 0:
        return
    print(metric_table(metrics))
    if options.out:
        write_report(
            options.out, title=title, metrics=metrics, config=config, data=data, figures={"accuracy": figure()}
        )
        print(f"report: {options.out / 'report.md'}")


def _tell_skipped(names: Sequence[str], limit: int = 5) -> None:
    """Name on stderr what could not be evaluated, on rank 0."""
    if names and rank_and_world()[0] == 0:
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        print(f"left out {len(names)}: {'; '.join(names[:limit])}{more}", file=sys.stderr)


def _config(options: Namespace, model) -> dict:
    """The options of the command and the hash of the weights they led to."""
    weights = gather_parts(weights_fingerprint(model))
    if len(set(weights)) > 1:
        raise ValueError(f"the ranks hold different weights {weights}: give all of them the same --pretrained")
    chosen = {name: value for name, value in vars(options).items() if name not in ("run", "out")}
    return {**chosen, "ranks": len(weights), "weights": weights[0]}


def _is_main(name: str) -> bool:
    return name.endswith((".thing.mAcc1", ".stuff.mAcc1", "top1", "R@1"))


def _need(path: Path, option: str, *, folder: bool = False) -> None:
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise FileNotFoundError(f"{path} is not a {kind}: pass the right one with {option}")
