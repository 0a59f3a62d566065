"""``clim-eval pseudo-label``: proposals and nouns to a COCO json of named boxes, in parts that ranks share."""

import hashlib
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from clim_data.box_table import BoxRules, BoxTable, load_boxes
from clim_data.parts import PartJob, launched_rank
from clim_data.report import BrokenSample, SkipReport
from clim_data.sources import SampleStore
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from clim_eval.captions_of_samples import CaptionTable
from clim_eval.command_parts import embed_names, load_model, need_path, read_names
from clim_eval.embeddings import read_class_embeddings
from clim_eval.noun_matching import NounFinder
from clim_eval.provenance import data_fingerprint, weights_fingerprint
from clim_eval.pseudo_labels import BoxNamer, BoxView, BoxViews, NamedBoxes
from clim_eval.version import __version__

# Options that decide what is written; the others decide how fast, or where things lie.
DECIDING = ("features", "image_px", "context", "min_score", "max_boxes", "min_box_px", "max_box_px", "no_captions")


def run_pseudo_label(options: Namespace) -> None:
    """Name the boxes of all images; every rank does its parts, rank 0 joins them."""
    rank, world_size = launched_rank()
    if options.part_images < 1:
        raise ValueError(f"--part-images {options.part_images}: pass at least 1 image")
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder: name the json file to write")
    need_path(options.boxes, "--boxes")
    if options.device is None and torch.cuda.is_available():
        options.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    model = load_model(options)
    names, embeddings = nouns_of(options, model)
    crops = options.features == "crops"
    options.image_px = None if crops else options.image_px or 64 * model.stride
    store = SampleStore(options.images, texts=False)
    table = load_boxes(options.boxes, store, BoxRules(area_px=(options.min_box_px, options.max_box_px), labelled=False))
    views = BoxViews(
        store,
        table,
        CaptionTable(options.captions_json, ignore=options.no_captions),
        crop_px=model.image_size[0] if crops else None,
        image_px=options.image_px,
        context=options.context,
    )
    namer = BoxNamer(
        model,
        embeddings,
        NounFinder(names),
        features=options.features,
        min_score=options.min_score,
        max_boxes=options.max_boxes,
        batch_size=options.batch_size or (256 if crops else 8),
    )
    job = PartJob(
        options.out,
        _identity(options, model, store=store, table=table, nouns=names, embeddings=embeddings),
        parts=-(-len(views) // options.part_images),
        rank=rank,
        world_size=world_size,
        patience=options.patience,
    )
    label_in_parts(job, views, namer, nouns=names, options=options)


def nouns_of(options: Namespace, model: Any) -> tuple[list[str], Tensor]:
    """The nouns of --nouns and their (K, C) embeddings, computed for a text file.

    Raises FileNotFoundError, and ValueError for a file without names or embeddings of another model.
    """
    if options.nouns.suffix not in (".safetensors", ".npy"):
        names = read_names(options.nouns, "--nouns")
        return names, embed_names(options, model, names)
    embeddings, names = read_class_embeddings(options.nouns, model=model)
    if names is None:
        raise ValueError(f"{options.nouns} has no names: make it with `clim-eval embed --names nouns.txt`")
    return names, embeddings


def label_in_parts(job: PartJob, views: BoxViews, namer: BoxNamer, *, nouns: Sequence[str], options: Namespace) -> None:
    """Do this rank's parts that are not there yet; on rank 0 wait for the others and write the output."""
    if job.finished(overwrite=options.overwrite):
        if job.rank == 0:
            print(f"{job.output} is there already, made from the same input and options")
        return
    size, mine = options.part_images, job.mine()
    try:
        count = sum(min(size, len(views) - number * size) for number in mine)
        with tqdm(total=count, desc="images", unit="image", disable=job.rank != 0, leave=False) as bar:
            for number in mine:
                places = range(number * size, min((number + 1) * size, len(views)))
                job.write(number, _part(views, namer, places, workers=options.workers, bar=bar))
    except BaseException as fault:
        job.failed(fault)
        raise
    if job.rank == 0:
        job.wait()
        _join(job, nouns, views.store.skipped)


def _part(views: BoxViews, namer: BoxNamer, places: Sequence[int], *, workers: int, bar: tqdm) -> dict[str, Any]:
    """The record of one part: images with named boxes, these, counts, and what could not be read."""
    faults: list[BrokenSample] = []
    counts: Counter = Counter(images=len(places))
    images, annotations = [], []
    loader = DataLoader(Subset(views, places), batch_size=None, num_workers=workers)
    for named in namer.name(_readable(loader, faults, bar)):
        counts.update(
            captioned=int(named.captioned), without_candidates=int(not named.candidates), boxes=len(named.rows)
        )
        if named.rows:
            image, boxes = _records(views.table, named)
            images.append(image)
            annotations += boxes
    skipped = [[fault.reason, fault.name, fault.detail] for fault in faults]
    return {"images": images, "annotations": annotations, "counts": dict(counts), "skipped": skipped}


def _readable(items: Iterable[BoxView | BrokenSample], faults: list[BrokenSample], bar: tqdm) -> Iterator[BoxView]:
    for item in items:
        bar.update()
        if isinstance(item, BrokenSample):
            faults.append(item)
        else:
            yield item


def _records(table: BoxTable, named: NamedBoxes) -> tuple[dict, list[dict]]:
    """The image and its annotations (without ids) as COCO has them: boxes XYWH in pixels."""
    image_id, file_name = table.images[named.number]
    height, width = table.sizes[named.number].tolist()
    boxes = table.boxes[table.starts[named.number] :]
    annotations = []
    for row, noun, score, cosine in zip(named.rows, named.nouns, named.scores, named.cosines, strict=True):
        x0, y0, x1, y1 = boxes[row].tolist()
        box = [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)]
        annotations.append(
            {
                "image_id": image_id,
                "category_id": noun + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "score": round(score, 6),
                "cosine": round(cosine, 5),
            }
        )
    return {"id": image_id, "file_name": file_name, "height": height, "width": width}, annotations


def _join(job: PartJob, nouns: Sequence[str], skipped: SkipReport) -> None:
    counts: Counter = Counter()
    for part in job.read():
        counts.update(part["counts"])
        skipped.extend(BrokenSample(*fault) for fault in part["skipped"])
    if not counts["boxes"]:
        raise ValueError(
            f"no box of {counts['images']} images got a noun ({counts['without_candidates']} have captions without a "
            f"noun of the list; {skipped.summary(3)}): check the nouns, or lower --min-score"
        )
    annotations = (annotation for part in job.read() for annotation in part["annotations"])
    job.join(
        {
            "counts": dict(counts),
            "categories": [{"id": number, "name": noun} for number, noun in enumerate(nouns, start=1)],
            "images": (image for part in job.read() for image in part["images"]),
            "annotations": ({"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)),
            "skipped": [{"reason": reason, "name": name} for name, (reason, _) in skipped.entries.items()],
        }
    )
    said = f"{counts['captioned']} with captions, of which {counts['without_candidates']} name no noun of the list"
    print(f"{job.output}: {counts['boxes']} boxes in {counts['images']} images ({said})")
    print(skipped.summary())


def _identity(
    options: Namespace, model: Any, *, store: SampleStore, table: BoxTable, nouns: Sequence[str], embeddings: Tensor
) -> dict[str, Any]:
    """What decides the content of the output."""
    text = hashlib.sha256("\n".join(nouns).encode())
    text.update(embeddings.float().cpu().contiguous().numpy().tobytes())
    captions = options.captions_json
    return {
        "made_by": f"clim-eval pseudo-label {__version__}",
        "model": options.model,
        "weights": weights_fingerprint(model),
        "images": store.fingerprint(),
        "boxes": table.stamp()[:16],
        "nouns": text.hexdigest()[:16],
        "captions": data_fingerprint([captions], {})["fingerprint"] if captions else None,
        **{name: getattr(options, name) for name in DECIDING},
    }
