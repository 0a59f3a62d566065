"""``clim-eval pseudo-label``: proposals and nouns to a COCO json of named boxes, in parts that
ranks share."""

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch
from clim_data.command_line import need_path
from clim_data.files import read_names
from clim_data.matching import BoxRules, BoxTable, CaptionTable, load_boxes
from clim_data.processes import PartJob, Ranks, local_device
from clim_data.sources import SampleStore
from torch import Tensor

from clim_eval.commands.shared import embed_names, load_model
from clim_eval.embeddings import read_class_embeddings
from clim_eval.labelling.boxes import BoxNamer, BoxViews
from clim_eval.labelling.job import label_in_parts
from clim_eval.labelling.nouns import NounFinder
from clim_eval.reports.provenance import data_fingerprint, weights_fingerprint
from clim_eval.version import __version__

# Options that decide what is written; the others decide how fast, or where things lie.
DECIDING = (
    "features",
    "image_px",
    "context",
    "min_score",
    "max_boxes",
    "min_box_px",
    "max_box_px",
    "no_captions",
)


def run_pseudo_label(options: Namespace) -> None:
    """Name the boxes of all images; every rank does its parts, rank 0 joins them."""
    rank, world_size = Ranks.of_launcher()
    if options.part_images < 1:
        raise ValueError(f"--part-images {options.part_images}: pass at least 1 image")
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder: name the json file to write")
    need_path(options.boxes, "--boxes")
    if options.device is None and torch.cuda.is_available():
        options.device = str(local_device())
    model = load_model(options)
    names, embeddings = nouns_of(options, model)
    crops = options.features == "crops"
    options.image_px = None if crops else options.image_px or 64 * model.stride
    store = SampleStore(options.images, texts=False)
    captions = CaptionTable(options.captions_json, store, ignore=options.no_captions)
    table = load_boxes(
        options.boxes,
        store,
        BoxRules(area_px=(options.min_box_px, options.max_box_px), labelled=False),
    )
    views = BoxViews(
        store,
        table,
        captions,
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

    Raises FileNotFoundError, and ValueError for a file without names or embeddings of another
    model.
    """
    if options.nouns.suffix not in (".safetensors", ".npy"):
        nouns = read_names(options.nouns, "--nouns")
        return nouns, embed_names(options, model, nouns)
    embeddings, names = read_class_embeddings(options.nouns, model=model)
    if names is None:
        raise ValueError(
            f"{options.nouns} has no names: make it with `clim-eval embed --names nouns.txt`"
        )
    return names, embeddings


def _identity(
    options: Namespace,
    model: Any,
    *,
    store: SampleStore,
    table: BoxTable,
    nouns: Sequence[str],
    embeddings: Tensor,
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
