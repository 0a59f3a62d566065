"""A labelling job in parts: it can be killed, continued and shared by ranks."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clim_data import BrokenSample, SkipReport
from clim_data.matching import BoxTable
from clim_data.processes import PartJob
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from clim_eval.labelling.boxes import BoxNamer, BoxView, BoxViews, NamedBoxes


def label_in_parts(
    job: PartJob, views: BoxViews, namer: BoxNamer, *, nouns: Sequence[str], options: Namespace
) -> None:
    """Do this rank's parts that are not there yet; on rank 0 wait for the others and write the
    output."""
    if job.finished(overwrite=options.overwrite):
        if job.rank == 0:
            print(f"{job.output} is there already, made from the same input and options")
        return
    size, mine = options.part_images, job.remaining_parts()
    try:
        count = sum(min(size, len(views) - number * size) for number in mine)
        with tqdm(
            total=count, desc="images", unit="image", disable=job.rank != 0, leave=False
        ) as bar:
            for number in mine:
                places = range(number * size, min((number + 1) * size, len(views)))
                job.write(number, _part(views, namer, places, workers=options.workers, bar=bar))
    except BaseException as fault:
        job.report_failure(fault)
        raise
    if job.rank == 0:
        job.wait()
        _join(job, nouns, views.store.skipped)


def _part(
    views: BoxViews, namer: BoxNamer, places: Sequence[int], *, workers: int, bar: tqdm
) -> dict[str, Any]:
    """The record of one part: images with named boxes, these, counts, and what could not be
    read."""
    faults: list[BrokenSample] = []
    counts: Counter = Counter(images=len(places))
    images, annotations = [], []
    loader = DataLoader(Subset(views, places), batch_size=None, num_workers=workers)
    for named in namer.name(_readable(loader, faults, bar)):
        counts.update(
            captioned=int(named.captioned),
            without_candidates=int(not named.candidates),
            boxes=len(named.rows),
        )
        if named.rows:
            image, boxes = _records(views.table, named)
            images.append(image)
            annotations += boxes
    skipped = [[fault.reason, fault.name, fault.detail] for fault in faults]
    return {
        "images": images,
        "annotations": annotations,
        "counts": dict(counts),
        "skipped": skipped,
    }


def _readable(
    items: Iterable[BoxView | BrokenSample], faults: list[BrokenSample], bar: tqdm
) -> Iterator[BoxView]:
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
    for row, noun, score, cosine in zip(
        named.rows, named.nouns, named.scores, named.cosines, strict=True
    ):
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
            f"no box of {counts['images']} images got a noun ({counts['without_candidates']} have "
            "captions without a "
            f"noun of the list; {skipped.summary(3)}): check the nouns, or lower --min-score"
        )
    annotations = (annotation for part in job.read() for annotation in part["annotations"])
    job.join(
        {
            "counts": dict(counts),
            "categories": [
                {"id": number, "name": noun} for number, noun in enumerate(nouns, start=1)
            ],
            "images": (image for part in job.read() for image in part["images"]),
            "annotations": (
                {"id": number, **annotation}
                for number, annotation in enumerate(annotations, start=1)
            ),
            "skipped": [
                {"reason": reason, "name": name} for name, (reason, _) in skipped.entries.items()
            ],
        }
    )
    captioned = (
        f"{counts['captioned']} with captions, of which {counts['without_candidates']} name no "
        "noun of the list"
    )
    print(f"{job.output}: {counts['boxes']} boxes in {counts['images']} images ({captioned})")
    print(skipped.summary())
