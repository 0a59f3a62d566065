"""Steps around the naming of a folder's boxes: proposals before it, pictures after it."""

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from clim_data import BrokenSample, decode_rgb
from clim_data.derive import ProposalJob, SelectiveSearch, find_proposals
from clim_data.files import stream_json
from clim_data.processes import Ranks
from clim_models.pipelines import PictureResult, RegionResult
from tqdm import tqdm

from clim_eval.labelling.options import PseudoLabelOptions

# End of the names of pictures.
ENDING = ".labels.jpg"


def find_boxes(folder: str, options: PseudoLabelOptions) -> Path:
    """Find boxes in all images by selective search, in parts that ranks share.

    Returns:
        The COCO json, next to the output of the labels. It is complete, on all ranks.

    Raises:
        ImportError: the extra of clim-data is missing; the message has the `pip install` line.
        ValueError: there is such a file of other images, or rank 0 does not write it.
    """
    rank, world_size = Ranks.of_launcher()
    path = options.out.with_name(f"{options.out.stem}.proposals.json")
    job = ProposalJob(
        workers=options.workers or max(1, (os.cpu_count() or 1) // world_size),
        rank=rank,
        world_size=world_size,
        patience=options.patience,
        overwrite=options.overwrite,
    )
    find_proposals(folder, path, SelectiveSearch(), job=job)
    waited = time.monotonic()
    while not path.exists():
        if time.monotonic() - waited > options.patience:
            raise ValueError(
                f"rank 0 did not write {path} for {options.patience:g} s: see its messages, and "
                "run the same command again"
            )
        time.sleep(0.2)
    return path


def draw_labels(labels: Path, folder: str, out: Path) -> None:
    """Draw the boxes of a COCO json on the images of a folder; only rank 0 does.

    Args:
        labels: of `clim-eval label`.
        folder: of the images.
        out: folder of the pictures, IMAGE.labels.jpg each.
    """
    if not Ranks.of_launcher().is_first:
        return
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, item in stream_json(labels):
        if name in ("images", "categories", "annotations"):
            tables[name].append(item)
    names = tuple(one["name"] for one in tables["categories"])
    regions: dict[Any, list[RegionResult]] = defaultdict(list)
    for one in tables["annotations"]:
        left, top, width, height = one["bbox"]
        label = one["category_id"] - 1
        box = (left, top, left + width, top + height)
        regions[one["image_id"]].append(RegionResult(names[label], one["score"], box, label))

    for image in tqdm(tables["images"], desc="pictures", unit="picture", leave=False):
        name = image["file_name"]
        try:
            pixels = decode_rgb(Path(folder) / name)
        except BrokenSample:
            # The image existed when its boxes were named; the others are still drawn.
            tqdm.write(f"{name} cannot be read any more: it gets no picture")
            continue
        size = (image["height"], image["width"])
        found = PictureResult(tuple(regions[image["id"]]), names, size, name, pixels)
        found.plot(out / f"{name}{ENDING}")
    print(f"pictures: {out}")
