"""Known data sets: their files, the sources of these, and the uses of each data set.

Other packages add entries to the dictionary: `DATASETS["mine"] = Dataset("mine", ...)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

COCO_FOLDERS = ("", "coco", "COCO", "coco2017")
LVIS_FOLDERS = ("", "lvis", "lvis_v1", "coco", "annotations", "coco/annotations")


@dataclass(frozen=True)
class DatasetCheck:
    """One file or folder that a data set needs.

    kind: "json" (an annotation file), "pickle" (references), "images", "pngs", "jsons", "texts" or
    "xmls" (a folder of files), or "tars" (shards). path: below one of `folders`, which are relative
    to the data root. count: files, or entries of the list `table` of a json, or of the list that a
    json or pickle is; None when the official number is not fixed. source: where it is published.
    """

    kind: str
    path: str
    source: str
    count: int | None = None
    folders: tuple[str, ...] = COCO_FOLDERS
    table: str = "images"


@dataclass(frozen=True)
class Dataset:
    """A use of a data set: complete when all checks of any one alternative hold."""

    name: str
    title: str
    alternatives: tuple[tuple[DatasetCheck, ...], ...]
    recipes: tuple[str, ...]


COCO_ANNOTATIONS = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
COCO_PANOPTIC = "http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip"
LVIS_SITE = "https://www.lvisdataset.org/dataset"
CC3M_SITE = "https://ai.google.com/research/ConceptualCaptions/download"

PNG_SITE = "https://bcv-uniandes.github.io/panoptic-narrative-grounding/"
REFER_SITE = "https://github.com/lichengunc/refer"
REASONSEG_SITE = "https://github.com/dvlab-research/LISA"
ENTITIES_SITE = "https://github.com/BryanPlummer/flickr30k_entities"
FLICKR_SITE = "https://shannon.cs.illinois.edu/DenotationGraph/"
OBJECTS365_SITE = "https://www.objects365.org/download.html"
VOC_SITE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
VISCOT_SITE = "https://huggingface.co/datasets/deepcs233/Visual-CoT"

_TRAIN = DatasetCheck(
    "images", "train2017", "http://images.cocodataset.org/zips/train2017.zip", 118287
)
_VAL = DatasetCheck("images", "val2017", "http://images.cocodataset.org/zips/val2017.zip", 5000)


def _coco(kind: str, split: str, count: int) -> DatasetCheck:
    source = COCO_PANOPTIC if kind == "panoptic" else COCO_ANNOTATIONS
    return DatasetCheck("json", f"annotations/{kind}_{split}2017.json", source, count)


def _segments(split: str, count: int) -> DatasetCheck:
    return DatasetCheck("pngs", f"annotations/panoptic_{split}2017", COCO_PANOPTIC, count)


_LVIS_TRAIN = DatasetCheck("json", "lvis_v1_train.json", LVIS_SITE, 100170, LVIS_FOLDERS)
_LVIS_VAL = DatasetCheck("json", "lvis_v1_val.json", LVIS_SITE, 19809, LVIS_FOLDERS)

_TRAIN_2014 = DatasetCheck(
    "images", "train2014", "http://images.cocodataset.org/zips/train2014.zip", 82783
)

# Questions of the Visual CoT benchmark, by set.
_VISCOT = {
    "cub": 492,
    "docvqa": 888,
    "dude": 603,
    "flickr30k": 1546,
    "gqa": 978,
    "infographicsvqa": 360,
    "openimages": 945,
    "sroie": 686,
    "textcap": 853,
    "textvqa": 526,
    "vsr": 404,
}


def _narratives(split: str) -> DatasetCheck:
    return DatasetCheck(
        "json", f"annotations/png_coco_{split}2017.json", PNG_SITE, table="narratives"
    )


def _referring(name: str, title: str, refs: str, *, references: int, images: int) -> Dataset:
    """A data set of the RefCOCO family: two files, and the images under their names of 2014 or
    2017."""
    folders = (name, f"refer/{name}", f"refer_seg/{name}", f"refer/data/{name}")
    files = (
        DatasetCheck("pickle", refs, REFER_SITE, references, folders, "references"),
        DatasetCheck("json", "instances.json", REFER_SITE, images, folders),
    )
    return Dataset(
        name, title, ((*files, _TRAIN_2014), (*files, _TRAIN)), ("clim-data pack refcoco",)
    )


def _visual_cot() -> Dataset:
    folders = ("viscot", "viscot/benchmark", "Visual-CoT/viscot/benchmark")
    images = ("viscot/cot_image_data", "cot_image_data", "Visual-CoT/cot_image_data")
    questions = [
        DatasetCheck("json", f"{k}.json", VISCOT_SITE, n, folders, "questions")
        for k, n in _VISCOT.items()
    ]
    pictures = [DatasetCheck("images", name, VISCOT_SITE, folders=images) for name in _VISCOT]
    return Dataset(
        "viscot",
        "Visual CoT benchmark, questions and images",
        ((*questions, *pictures),),
        ("flmm: visual chain of thought",),
    )


def _reasonseg(split: str, count: int) -> Dataset:
    folders = ("reasonseg", "ReasonSeg", "reason_seg/ReasonSeg")
    checks = tuple(
        DatasetCheck(kind, split, REASONSEG_SITE, count, folders) for kind in ("images", "jsons")
    )
    name = "reasonseg" if split == "val" else f"reasonseg-{split}"
    return Dataset(name, f"ReasonSeg, {split} split", (checks,), ("flmm eval reasonseg",))


def _voc() -> Dataset:
    folders = ("VOCdevkit/VOC2007", "VOC2007")
    files = (
        DatasetCheck("images", "JPEGImages", VOC_SITE, folders=folders),
        DatasetCheck("xmls", "Annotations", VOC_SITE, folders=folders),
        DatasetCheck("texts", "ImageSets/Main", VOC_SITE, folders=folders),
    )
    uses = ("clim-data voc", "clim-eval detection --transfer other")
    return Dataset("voc2007", "Pascal VOC 2007", (files,), uses)


def _objects365() -> Dataset:
    homes = ("Objects365/Obj365_v1", "Obj365_v1", "objects365v1", "objects365", "Objects365")
    annotations = (*(f"{home}/annotations" for home in homes), *homes)
    files = (
        DatasetCheck("images", "val", OBJECTS365_SITE, folders=homes),
        DatasetCheck("json", "objects365_val.json", OBJECTS365_SITE, folders=annotations),
    )
    uses = ("clim-eval detection --transfer other",)
    return Dataset("objects365", "Objects365 v1, validation split", (files,), uses)


def _flickr_entities() -> Dataset:
    folders = ("flickr30k_entities", "flickr30k", "")
    files = (
        DatasetCheck("images", "flickr30k-images", FLICKR_SITE, 31783, folders),
        DatasetCheck("texts", "Sentences", ENTITIES_SITE, 31783, folders),
        DatasetCheck("xmls", "Annotations", ENTITIES_SITE, 31783, folders),
    )
    title = "Flickr30k Entities, captions and boxes"
    return Dataset("flickr30k-entities", title, (files,), ("flmm eval flickr30k",))


_OFFICIAL = (
    Dataset(
        "coco-captions",
        "COCO 2017 captions, training split",
        ((_TRAIN, _coco("captions", "train", 118287)),),
        (
            "clim-data nouns, proposals and tags",
            "clim-eval pseudo-label for clim-train regionclip_coco_evab16, ..._eval14",
        ),
    ),
    Dataset(
        "coco-captions-val",
        "COCO 2017 captions, validation split",
        ((_VAL, _coco("captions", "val", 5000)),),
        ("clim-eval retrieval",),
    ),
    Dataset(
        "coco-panoptic-val",
        "COCO 2017 panoptic, validation split",
        ((_VAL, _coco("panoptic", "val", 5000), _segments("val", 5000)),),
        ("clim-eval regions",),
    ),
    Dataset(
        "coco-panoptic",
        "COCO 2017 panoptic, training split",
        ((_TRAIN, _coco("panoptic", "train", 118287), _segments("train", 118287)),),
        ("clim-data pack coco-panoptic",),
    ),
    Dataset(
        "coco-instances",
        "COCO 2017 instances, training split",
        ((_TRAIN, _coco("instances", "train", 118287)),),
        ("clim-data pack coco-instances", "clim-data ov-split coco"),
    ),
    Dataset(
        "coco-instances-val",
        "COCO 2017 instances, validation split",
        ((_VAL, _coco("instances", "val", 5000)),),
        (
            "clim-eval regions",
            "clim-eval detection (also --transfer coco)",
            "clim-data ov-split coco",
        ),
    ),
    Dataset(
        "lvis",
        "LVIS v1 (images of COCO 2017)",
        ((_TRAIN, _VAL, _LVIS_TRAIN, _LVIS_VAL),),
        (
            "clim-data pack lvis",
            "clim-data ov-split lvis",
            "clim-eval regions",
            "clim-eval detection",
        ),
    ),
    Dataset(
        "lvis-captions",
        "COCO captions of the LVIS v1 training images",
        ((_TRAIN, _LVIS_TRAIN, _coco("captions", "train", 118287)),),
        (),
    ),
    Dataset(
        "cc3m",
        "Conceptual Captions 3M, as img2dataset shards or as images and json",
        (
            (DatasetCheck("tars", "cc3m", CC3M_SITE, folders=("", "shards")),),
            (
                DatasetCheck("images", "images", CC3M_SITE, folders=("cc3m", "CC3M")),
                DatasetCheck(
                    "json", "train.json", CC3M_SITE, folders=("cc3m", "CC3M", "cc3m/annotations")
                ),
            ),
        ),
        ("clim-data tags",),
    ),
    Dataset(
        "png",
        "Panoptic Narrative Grounding, training split",
        (
            (
                _TRAIN,
                _coco("panoptic", "train", 118287),
                _segments("train", 118287),
                _narratives("train"),
            ),
        ),
        ("clim-data pack png",),
    ),
    Dataset(
        "png-val",
        "Panoptic Narrative Grounding, validation split",
        ((_VAL, _coco("panoptic", "val", 5000), _segments("val", 5000), _narratives("val")),),
        ("clim-data pack png",),
    ),
    _referring("refcoco", "RefCOCO (UNC split)", "refs(unc).p", references=50000, images=19994),
    _referring("refcoco+", "RefCOCO+ (UNC split)", "refs(unc).p", references=49856, images=19992),
    _referring("refcocog", "RefCOCOg (UMD split)", "refs(umd).p", references=49822, images=25799),
    _visual_cot(),
    _reasonseg("val", 200),
    _reasonseg("test", 779),
    _voc(),
    _objects365(),
    _flickr_entities(),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _OFFICIAL}
"""The data sets that `clim-data doctor` knows, by name. Other packages may add to it."""

_COCO_BOXES = ("coco-instances",)
RECIPES: dict[str, tuple[str, ...]] = {
    "clim_coco_vitb16": ("coco-captions",),
    "clim_coco_evab16": ("coco-captions",),
    "clim_cc3m_vitb16": ("cc3m",),
    "clim_lvis_vitb16": ("lvis-captions",),
    **dict.fromkeys(
        (
            "clipself_coco_patches_evab16",
            "clipself_coco_patches_eval14",
            "clipself_coco_proposals_evab16",
            "clipself_coco_proposals_eval14",
        ),
        _COCO_BOXES,
    ),
    "clipself_lvis_patches_evab16": ("lvis",),
    "clipself_lvis_patches_eval14": ("lvis",),
    "regionclip_coco_evab16": ("coco-captions",),
    "regionclip_coco_eval14": ("coco-captions",),
    "fvit_coco_evab16": _COCO_BOXES,
    "fvit_coco_eval14": _COCO_BOXES,
    "fvit_lvis_evab16": ("lvis",),
    "fvit_lvis_eval14": ("lvis",),
    "fvlm_coco_vitb16": _COCO_BOXES,
    "fvlm_lvis_vitb16": ("lvis",),
    "fvlm_lvis_rn50x64": ("lvis",),
    "detic_coco_base": _COCO_BOXES,
    "detic_coco_captions": (*_COCO_BOXES, "coco-captions"),
    "detic_coco_tags": (*_COCO_BOXES, "coco-captions"),
    "detic_lvis_base": ("lvis",),
    "detic_lvis_captions": ("lvis", "cc3m"),
    "detic_lvis_clim": ("lvis", "cc3m"),
}
"""The data sets that each recipe of clim-train trains on. Files that are made of them (proposals,
pseudo labels, tags, lists of base classes) are not checked."""


def needed_datasets(names: Iterable[str]) -> list[Dataset]:
    """Return the data sets of names, which are data sets or recipes, each once.

    Raises:
        ValueError: a name is neither.
    """
    found: dict[str, Dataset] = {}
    for name in names:
        for dataset in RECIPES.get(name, (name,)):
            if dataset not in DATASETS:
                raise ValueError(
                    f"{name} is not known: choose from {', '.join(DATASETS)}, or a recipe of "
                    f"`clim-train list`: {', '.join(RECIPES)}"
                )
            found[dataset] = DATASETS[dataset]
    return list(found.values())


def enabled_by(dataset: Dataset) -> tuple[str, ...]:
    """Return the commands that need a data set, and the other data sets of recipes that need
    several."""
    recipes = []
    for recipe, needs in RECIPES.items():
        if dataset.name in needs:
            others = [need for need in needs if need != dataset.name]
            recipes.append(f"clim-train {recipe}" + (f" (with {others[0]})" if others else ""))
    return (*dataset.recipes, *recipes)
