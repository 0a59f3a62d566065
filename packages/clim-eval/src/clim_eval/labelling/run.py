"""Pseudo labels: proposals and nouns to a COCO json of named boxes, in parts that ranks share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clim_data.command_line import need_path
from clim_data.files import read_names
from clim_data.matching import BoxRules, BoxTable, CaptionTable, load_boxes
from clim_data.processes import PartJob, Ranks
from clim_data.sources import SampleStore
from clim_models import RegionModel
from torch import Tensor

from clim_eval.class_vectors import VocabularyFile
from clim_eval.embeddings import cache_folder, embed_with_bar, read_class_embeddings
from clim_eval.labelling.boxes import BoxNamer, BoxViews
from clim_eval.labelling.job import LabelJob
from clim_eval.labelling.nouns import NounFinder
from clim_eval.labelling.options import PseudoLabelOptions
from clim_eval.model_loading import load_chosen_model, reading_px
from clim_eval.reports.provenance import data_fingerprint, weights_fingerprint
from clim_eval.version import __version__

# Options that decide the content of the output; the others decide speed and places.
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


def pseudo_label(options: PseudoLabelOptions) -> None:
    """Name the boxes of all images with nouns and write them as a COCO json.

    Every rank of a launcher does its parts, rank 0 joins them. The same call continues a killed
    job. A finished job runs again only for images that could not be read and now can be.

    Raises:
        FileNotFoundError, ValueError: an input is missing or does not fit, `out` is there from
            other input or options, or no box got a name.
    """
    need_path(options.boxes, "--boxes")
    model, options = _load_model(options)
    nouns = _read_nouns(options, model)

    store = SampleStore(list(options.images), texts=False)
    size = (options.min_box_px, options.max_box_px)
    table = load_boxes(options.boxes, store, BoxRules(area_px=size, labelled=False))

    captions = CaptionTable(options.captions_json, store, ignore=options.no_captions)
    views = BoxViews(
        store,
        table,
        captions,
        crop_px=model.image_size[0] if options.features == "crops" else None,
        image_px=options.image_px,
        context=options.context,
    )
    namer = BoxNamer(
        model,
        nouns.embeddings,
        nouns.finder(),
        rejects=nouns.rejects,
        features=options.features,
        min_score=options.min_score,
        max_boxes=options.max_boxes,
        batch_size=options.batch_size,
    )

    rank, world_size = Ranks.of_launcher()
    parts = PartJob(
        options.out,
        _identity(options, model, store=store, table=table, nouns=nouns),
        parts=-(-len(views) // options.part_images),
        rank=rank,
        world_size=world_size,
        patience=options.patience,
    )
    LabelJob(parts, views, namer, nouns.names, options).run()


@dataclass(frozen=True)
class Nouns:
    """K nouns, or classes of a vocabulary.

    Attributes:
        names: of the K classes.
        embeddings: (K, C).
        rejects: (M, C) of phrases that never win, or None.
        phrases: those that name each class in captions; None for the names.
    """

    names: list[str]
    embeddings: Tensor
    rejects: Tensor | None = None
    phrases: Sequence[Sequence[str]] | None = None

    def finder(self) -> NounFinder:
        """Return the finder of the classes in captions."""
        if self.phrases is None:
            return NounFinder(self.names)
        owners = [label for label, own in enumerate(self.phrases) for _ in own]
        return NounFinder([phrase for own in self.phrases for phrase in own], owners)


def _load_model(options: PseudoLabelOptions) -> tuple[RegionModel, PseudoLabelOptions]:
    """Load the model, and fill in the options that follow from it."""
    model = load_chosen_model(options)
    image_px = None if options.features == "crops" else reading_px(model, options.image_px)
    return model, replace(options, model=model.name, image_px=image_px)


def _read_nouns(options: PseudoLabelOptions, model: RegionModel) -> Nouns:
    """Read the nouns, or the vocabulary, with embeddings, which are computed for texts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no names, or embeddings of another model.
    """
    cache = None if options.no_cache else options.cache or cache_folder()
    if options.vocabulary is not None:
        return _of_vocabulary(options.vocabulary, model, options.templates, cache)
    if options.nouns is None or options.nouns.suffix not in (".safetensors", ".npy"):
        names = list(options.names)
        if options.nouns is not None:
            names = read_names(options.nouns, "--nouns")
        show = Ranks.of_launcher().is_first
        return Nouns(names, embed_with_bar(model, names, options.templates, cache=cache, show=show))

    embeddings, known = read_class_embeddings(options.nouns, model=model)
    if known is None:
        raise ValueError(
            f"{options.nouns} has no names: make it with `clim-eval embed --names nouns.txt`"
        )
    return Nouns(known, embeddings)


def _of_vocabulary(path: Path, model: RegionModel, templates: str, cache: Path | None) -> Nouns:
    """Embed the classes of a vocabulary file."""
    file = VocabularyFile.read(path)
    found = file.embed(model, templates, cache=cache)
    # A class of example pictures alone is named by its own name in captions.
    phrases = [tuple(one.phrases) or (one.name,) for one in file.vocabulary]
    rejects = found.rejects if len(found.rejects) else None
    return Nouns(list(file.vocabulary.names), found.embeddings, rejects, phrases)


def _identity(
    options: PseudoLabelOptions,
    model: RegionModel,
    *,
    store: SampleStore,
    table: BoxTable,
    nouns: Nouns,
) -> dict[str, Any]:
    """Return the options and inputs that decide the content of the output."""
    captions = options.captions_json
    return {
        "made_by": f"clim-eval pseudo-label {__version__}",
        "model": options.model,
        "weights": weights_fingerprint(model),
        "images": store.fingerprint(),
        "boxes": table.stamp()[:16],
        "nouns": _hash_nouns(nouns),
        "captions": data_fingerprint([captions], {})["fingerprint"] if captions else None,
        **{name: getattr(options, name) for name in DECIDING},
    }


def _hash_nouns(nouns: Nouns) -> str:
    digest = hashlib.sha256("\n".join(nouns.names).encode())
    digest.update(nouns.embeddings.float().cpu().contiguous().numpy().tobytes())
    if nouns.rejects is not None:
        digest.update(nouns.rejects.float().cpu().contiguous().numpy().tobytes())
    if nouns.phrases is not None:
        digest.update(repr(nouns.phrases).encode())
    return digest.hexdigest()[:16]
