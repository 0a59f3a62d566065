"""A labelling job in parts: it can be killed, continued and shared by ranks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from clim_data import BrokenSample, SkipReport
from clim_data.files import stream_json
from clim_data.matching import BoxTable
from clim_data.pixels import xyxy_to_xywh
from clim_data.processes import PartJob, do_parts, load_in_workers
from tqdm import tqdm

from clim_eval.labelling.boxes import BoxNamer, BoxView, BoxViews, NamedBoxes
from clim_eval.labelling.options import PseudoLabelOptions
from clim_eval.reports.coverage import Coverage, coverage_as_json

# Rules that exclude a box, with their names in the counts of a part.
BOX_RULES = {
    "no noun of the list in the captions": "boxes_without_noun",
    "below --min-score": "boxes_below_score",
    "beyond --max-boxes": "boxes_beyond_number",
    'closest to a phrase under "not" of the vocabulary': "boxes_rejected",
}


@dataclass(frozen=True)
class LabelJob:
    """One job: its parts, the images with their boxes, the CLIP that names them, and the nouns."""

    parts: PartJob
    views: BoxViews
    namer: BoxNamer
    nouns: Sequence[str]
    options: PseudoLabelOptions

    def run(self) -> None:
        """Do the missing parts of this rank; on rank 0 wait for the others and write the output."""
        job = self.parts
        if job.finished(overwrite=self.options.overwrite):
            if job.rank == 0 and not self._name_repaired_images():
                print(
                    f"{job.output} is there already, made from the same input and options (images "
                    "that were replaced since are not compared: --overwrite names all boxes again)"
                )
            return

        images, part_images = len(self.views), self.options.part_images
        if do_parts(job, self._part, images=images, part_images=part_images):
            self._join()

    def _part(self, places: Sequence[int], bar: tqdm) -> dict[str, Any]:
        """Return the record of some images: images with named boxes, the boxes, counts, and
        faults."""
        faults: list[tuple[int, BrokenSample]] = []
        counts: Counter[str] = Counter(images=len(places))
        images, annotations = [], []
        views = load_in_workers(self.views, places, workers=self.options.workers)
        for named in self.namer.name(_readable(zip(places, views, strict=True), faults, bar)):
            counts.update(_counts(named))
            if named.rows:
                image, boxes = _records(self.views.table, named)
                images.append(image)
                annotations += boxes

        skipped = [[fault.reason, fault.name, fault.detail, place] for place, fault in faults]
        return {
            "images": images,
            "annotations": annotations,
            "counts": dict(counts),
            "skipped": skipped,
        }

    def _join(self) -> None:
        """Write the output from all parts."""
        counts: Counter[str] = Counter()
        skipped: list[dict[str, Any]] = []
        for part in self.parts.read():
            counts.update(part["counts"])
            skipped += [_skip_record(*fault) for fault in part["skipped"]]

        coverage = self._coverage(counts, skipped)
        if not counts["boxes"]:
            lines = "; ".join(line.strip() for part in coverage for line in part.lines(3))
            raise ValueError(f"no box got a name ({lines}): check the names, or lower --min-score")

        images = (image for part in self.parts.read() for image in part["images"])
        boxes = (box for part in self.parts.read() for box in part["annotations"])
        self.parts.join(self._content(counts, skipped, images, boxes))
        self._report(counts, coverage)

    def _name_repaired_images(self) -> bool:
        """Name the boxes of images that could not be read when the output was written and now can
        be.

        The rest of the output stays. Returns whether there are such images.
        """
        output = self.parts.output
        counts, skipped = _read_head(output)
        repaired = [e["place"] for e in skipped if isinstance(self.views[e["place"]], BoxView)]
        if not repaired:
            return False

        counts["images"] -= len(repaired)  # they are counted again
        with tqdm(total=len(repaired), disable=True) as bar:
            part = self._part(repaired, bar)
        counts.update(part["counts"])

        left = [entry for entry in skipped if entry["place"] not in repaired]
        old_images = (entry for name, entry in stream_json(output) if name == "images")
        old_boxes = (entry for name, entry in stream_json(output) if name == "annotations")
        images, boxes = chain(old_images, part["images"]), chain(old_boxes, part["annotations"])
        self.parts.join(self._content(counts, left, images, boxes))
        print(f"{len(repaired)} images that could not be read before can be read now")
        self._report(counts, self._coverage(counts, left))
        return True

    def _content(
        self,
        counts: Counter[str],
        skipped: Sequence[dict[str, Any]],
        images: Iterable[dict[str, Any]],
        boxes: Iterable[dict[str, Any]],
    ) -> dict[str, Any]:
        """Return the entries of the output, after `info`."""
        categories = [{"id": number, "name": noun} for number, noun in enumerate(self.nouns, 1)]
        return {
            "counts": dict(counts),
            "coverage": coverage_as_json(self._coverage(counts, skipped)),
            # Before the long lists: a later run reads no more than this.
            "skipped": [*skipped, *self._skipped_by_lists()],
            "categories": categories,
            "images": images,
            "annotations": ({**box, "id": number} for number, box in enumerate(boxes, 1)),
        }

    def _skipped_by_lists(self) -> list[dict[str, Any]]:
        """Return the faults of the files of boxes and images, known before any image is read."""
        return [_skip_record(f.reason, f.name, f.detail) for f in self.views.left_out]

    def _coverage(
        self, counts: Counter[str], skipped: Sequence[dict[str, Any]]
    ) -> tuple[Coverage, ...]:
        """Return the coverage of images and of boxes."""
        unread = SkipReport(BrokenSample(e["reason"], e["name"], e["detail"]) for e in skipped)
        rules = {reason: counts[name] for reason, name in BOX_RULES.items()}
        return (
            Coverage("images", counts["images"] - unread.total, unread),
            Coverage("boxes", counts["boxes"], by_rule=rules),
        )

    def _report(self, counts: Counter[str], coverage: Sequence[Coverage]) -> None:
        """Print the counts of the output, and its coverage."""
        print(
            f"{self.parts.output}: {counts['boxes']} boxes in {counts['images']} images "
            f"({counts['captioned']} with captions, of which {counts['without_candidates']} name "
            "no noun of the list)"
        )
        for part in coverage:
            print("\n".join(part.lines()))
        print(SkipReport(self.views.left_out).summary())


def _read_head(output: Path) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Read the counts of an output, and its images that could not be read."""
    counts: Counter[str] = Counter()
    skipped = []
    for name, entry in stream_json(output):
        if name == "counts":
            counts.update(entry)
        elif name == "skipped" and "place" in entry:
            skipped.append(entry)
        elif name == "images":
            break
    return counts, skipped


def _readable(
    items: Iterable[tuple[int, BoxView | BrokenSample]],
    faults: list[tuple[int, BrokenSample]],
    bar: tqdm,
) -> Iterator[BoxView]:
    """Yield the readable images, and add (place, fault) of the others to `faults`."""
    for place, item in items:
        bar.update()
        if isinstance(item, BrokenSample):
            faults.append((place, item))
        else:
            yield item


def _counts(named: NamedBoxes) -> dict[str, int]:
    """Count an image's boxes by outcome."""
    found = {
        "captioned": int(named.captioned),
        "without_candidates": int(not named.candidates),
        "boxes": len(named.rows),
    }
    if not named.candidates:
        return {**found, "boxes_without_noun": named.boxes}
    beyond = named.boxes - named.below_min_score - named.rejected - len(named.rows)
    return {
        **found,
        "boxes_below_score": named.below_min_score,
        "boxes_beyond_number": beyond,
        "boxes_rejected": named.rejected,
    }


def _skip_record(reason: str, name: str, detail: str, place: int | None = None) -> dict[str, Any]:
    """Return an entry of "skipped"; `place` is the image's number if the image is at fault."""
    record: dict[str, Any] = {"reason": reason, "name": name, "detail": detail}
    return record if place is None else {**record, "place": place}


def _records(table: BoxTable, named: NamedBoxes) -> tuple[dict, list[dict]]:
    """The image and its annotations (without ids) as COCO has them: boxes XYWH in pixels."""
    image_id, file_name = table.images[named.number]
    height, width = table.sizes[named.number].tolist()
    boxes = table.boxes[table.starts[named.number] :]
    annotations = []
    for row, noun, score, cosine in zip(
        named.rows, named.nouns, named.scores, named.cosines, strict=True
    ):
        box = [round(value, 3) for value in xyxy_to_xywh(boxes[row].tolist())]
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
