"""What each command of ``clim-eval`` does with its parsed options."""

import json
from argparse import Namespace
from pathlib import Path

from clim_eval.command_parts import (
    PROTOCOLS,
    class_rows,
    command_config,
    embed_names,
    finish,
    load_model,
    need_path,
    read_names,
    region_data,
    region_file,
    tell_skipped,
)
from clim_eval.pictures import accuracy_bars, similarity_figure
from clim_eval.provenance import data_fingerprint
from clim_eval.regions import RegionClassification
from clim_eval.report import combine_reports, metric_table, read_report, write_png, write_report
from clim_eval.retrieval import ImageTextRetrieval, ZeroShotClassification


def run_regions(options: Namespace) -> None:
    """Region classification on a COCO-style data set."""
    model = load_model(options)
    data, annotations = region_data(options, model), region_file(options)
    classes = class_rows(options, model, data.class_names)
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
    tell_skipped(rows.unreadable)
    if not metrics:
        raise ValueError(f"{annotations} has no region of 64 to 1048576 pixels: check that it belongs to --images")
    readouts = {name: {} for name in rows.ranks}
    for name, value in metrics.items():
        readout, _, rest = name.partition(".")
        readouts[readout][rest] = value
    shown = [
        name for name in ("thing.mAcc1", "stuff.mAcc1", "thing.mAcc5", "stuff.mAcc5") if f"boxes.{name}" in metrics
    ]
    finish(
        options,
        title=f"Region classification of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint([annotations], {**rows.counts(), "unreadable": len(rows.unreadable)}),
        figure=lambda: accuracy_bars(readouts, metrics=shown, title=f"{options.model}: mean class accuracy"),
    )


def run_retrieval(options: Namespace) -> None:
    """Image-text retrieval on COCO-style captions."""
    from clim_data import ImageCaptions

    need_path(options.images, "--images", folder=True)
    need_path(options.captions_json, "--captions-json")
    model = load_model(options)
    data = ImageCaptions(options.images, options.captions_json, options.image_px or model.image_size[0])
    retrieval = ImageTextRetrieval(model, batch_size=options.batch_size, workers=options.workers, progress=True)
    left_out = list(data.skipped.entries)  # before the run adds files that turn out to be broken
    metrics = retrieval.run(data)
    tell_skipped([*left_out, *(f"image {image_id}" for image_id in retrieval.skipped)])
    directions = {
        title: {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith(start)}
        for start, title in (("i2t", "image to text"), ("t2i", "text to image"))
    }
    finish(
        options,
        title=f"Image-text retrieval of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint([options.captions_json], {"images": len(data) - len(retrieval.skipped)}),
        figure=lambda: accuracy_bars(directions, title=f"{options.model}: retrieval recall"),
    )


def run_zeroshot(options: Namespace) -> None:
    """Zero-shot classification of images with a class each."""
    from clim_eval.labelled_images import class_images

    model = load_model(options)
    names = read_names(options.names, "--names") if options.names else None
    data = class_images(options.images, options.image_px or model.image_size[0], names=names)
    rows = class_rows(options, model, data.class_names)
    evaluator = ZeroShotClassification(
        model, rows, batch_size=options.batch_size, workers=options.workers, progress=True
    )
    left_out = list(data.skipped.entries)
    metrics = evaluator.run(data)
    tell_skipped([*left_out, *evaluator.skipped])
    finish(
        options,
        title=f"Zero-shot classification of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data.description(),
        figure=lambda: accuracy_bars({options.model: metrics}, title=f"{options.model}: zero-shot accuracy"),
    )


def run_embed(options: Namespace) -> None:
    """Class embeddings to a file."""
    from clim_eval.embeddings import embeddings_path, save_class_embeddings

    embeddings_path(options.out)
    if options.names:
        names = read_names(options.names, "--names")
    else:
        need_path(options.categories_json, "--categories-json")
        content = json.loads(options.categories_json.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content.get("categories"):
            raise ValueError(f"{options.categories_json} has no categories: pass a COCO-style annotation file")
        names = [category["name"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    model = load_model(options)
    embeddings = embed_names(options, model, names)
    save_class_embeddings(options.out, embeddings, names, options.templates, model=model)
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

    need_path(options.image, "IMAGE")
    image = decode_rgb(options.image)
    model = load_model(options)
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


def _is_main(name: str) -> bool:
    return name.endswith((".thing.mAcc1", ".stuff.mAcc1", "top1", "R@1"))
