"""The data of a comparison from a folder in COCO layout.

If some classes must stay unseen, no arm trains on images whose captions name one of them.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clim_data import ImageCaptions, PanopticRegions
from clim_data.annotations import captions_of_images, read_annotations
from clim_data.files import image_file_name, read_names
from clim_eval import class_images, embed_with_bar, save_class_embeddings
from clim_eval.labelling import NounFinder
from clim_models import RegionModel

from clim_train.experiments.comparison.data import (
    ComparisonData,
    LabelledSet,
    RegionSet,
    TrainingData,
    label_groups,
)

TEMPLATES = "vild"


@dataclass(frozen=True)
class CocoFiles:
    """Paths of a data set and of the files that were made from it.

    root: has `train2017/`, `val2017/`, `panoptic_val2017/` and `annotations/` with
    captions_train2017.json, captions_val2017.json and panoptic_val2017.json. proposals: COCO json
    of boxes (`clim-data proposals`). nouns: a name a line (`clim-data nouns`). shards: training
    images with captions, in place of `train2017/`. zeroshot: a folder with a folder of images for
    each class. unseen: class names, one a line.
    """

    root: Path
    proposals: Path
    nouns: Path
    shards: tuple[str, ...] = ()
    zeroshot: Path | None = None
    unseen: Path | None = None

    def __post_init__(self) -> None:
        folders = ["val2017", "panoptic_val2017", *([] if self.shards else ["train2017"])]
        files = [f"annotations/{name}.json" for name in ("captions_val2017", "panoptic_val2017")]
        files += [] if self.shards else ["annotations/captions_train2017.json"]
        missing = [name for name in folders if not (self.root / name).is_dir()]
        missing += [name for name in files if not (self.root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.root} lacks {', '.join(missing)}: pass the folder of COCO 2017 "
                f"(`clim-data doctor {self.root}` says where the parts come from)"
            )
        for option in ("proposals", "nouns", "unseen"):
            path = getattr(self, option)
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{path} is not a file: pass the right one with --{option}")
        if self.shards and self.unseen:
            raise ValueError(
                f"--unseen {self.unseen} with --shards: captions in shards are not searched; leave "
                "--shards out, so "
                "that train2017/ is read"
            )

    @property
    def train_captions(self) -> Path:
        return self.root / "annotations" / "captions_train2017.json"


def coco_data(
    folder: Path, model: RegionModel, files: CocoFiles, *, image_px: int
) -> ComparisonData:
    """Write lists of the allowed training data to `folder` (nothing is copied), and open the
    validation images."""
    root = files.root
    regions = PanopticRegions(
        root / "val2017",
        root / "annotations" / "panoptic_val2017.json",
        root / "panoptic_val2017",
        image_px=image_px,
        stride=model.stride,
        crop_px=model.image_size[0],
    )
    unseen = read_names(files.unseen, "--unseen") if files.unseen else []
    groups = label_groups(regions.class_names, unseen)
    embeddings = embed_with_bar(model, regions.class_names, TEMPLATES, cache=None, show=True)
    zeroshot = {}
    if files.zeroshot is not None:
        images = class_images(files.zeroshot, model.image_size[0])
        rows = embed_with_bar(model, images.class_names, TEMPLATES, cache=None, show=True)
        zeroshot["all"] = LabelledSet(images, rows)
    captions = ImageCaptions(
        root / "val2017", root / "annotations" / "captions_val2017.json", model.image_size[0]
    )
    return ComparisonData(
        coco_training(folder, model, files, unseen),
        (RegionSet(regions, embeddings, groups),),
        {"": captions},
        zeroshot,
    )


def coco_training(
    folder: Path, model: RegionModel, files: CocoFiles, unseen: Sequence[str]
) -> TrainingData:
    """Write nouns with embeddings, and the lists of images and captions that name no class of
    `unseen`."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = NounFinder(unseen)
    names = [noun for noun in read_names(files.nouns, "--nouns") if not hidden.find([noun])]
    if not names:
        raise ValueError(
            f"{files.nouns} has no noun that may be trained on: make the list with `clim-data "
            "nouns`"
        )
    nouns = folder / "nouns.safetensors"
    rows = embed_with_bar(model, names, TEMPLATES, cache=None, show=True)
    save_class_embeddings(nouns, rows, names, TEMPLATES, model=model)
    if files.shards:
        return TrainingData(files.shards, files.shards, files.proposals, nouns)

    kept: list[tuple[dict, list[str]]] = []
    for image, captions in captions_of_images(files.train_captions):
        texts = [caption for caption in captions if caption.strip()]
        if texts and not hidden.find(texts):
            kept.append((image, texts))
    if not kept:
        raise ValueError(
            f"{files.train_captions} has no image that may be trained on: check it and --unseen"
        )
    listed = folder / "captions_train.json"
    listed.write_text(
        json.dumps({"images": [{**image, "captions": texts} for image, texts in kept]})
    )
    pairs = linked_pairs(folder / "pairs", files.root / "train2017", kept)
    file_names = {image_file_name(image) for image, _ in kept}
    proposals = write_boxes(files.proposals, file_names, folder / "proposals.json")
    scenes = (str(files.root / "train2017"),)
    return TrainingData((str(pairs),), scenes, proposals, nouns, listed=listed, captions=listed)


def linked_pairs(folder: Path, images: Path, kept: Sequence[tuple[dict, list[str]]]) -> Path:
    """Write a folder with a link to the image folder and the captions of the allowed images; return
    it."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"file_name": f"images/{image_file_name(image)}", "captions": texts}
        for image, texts in kept
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to(os.path.abspath(images), target_is_directory=True)
    return folder


def write_boxes(proposals: Path, file_names: set[str], output: Path) -> Path:
    """Write the boxes of some images as a COCO json of their own, and return where."""
    table = read_annotations(proposals, "images", "annotations")
    table["images"] = [image for image in table["images"] if image_file_name(image) in file_names]
    ids = {image["id"] for image in table["images"]}
    table["annotations"] = [box for box in table["annotations"] if box["image_id"] in ids]
    if not table["annotations"]:
        raise ValueError(
            f"{proposals} has no box in the training images: make it with `clim-data proposals`"
        )
    output.write_text(json.dumps(table))
    return output
