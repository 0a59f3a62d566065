"""The report of an evaluation of detections: figures, a row for each class, pictures of boxes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from clim_data import BrokenSample
from clim_data.files import write_json
from clim_data.pixels import decode_segmentation

from clim_eval.detection.annotations import DetectionTruth
from clim_eval.detection.options import DetectionOptions
from clim_eval.detection.pictures import AnnotatedPictures
from clim_eval.detection.scores import ClassRow, DetectionScores
from clim_eval.evaluators.detections import Picture
from clim_eval.pictures.detections import detection_figure
from clim_eval.reports.coverage import Coverage
from clim_eval.reports.provenance import data_fingerprint
from clim_eval.reports.report import write_report
from clim_eval.reports.tables import markdown, show_number, to_jsonable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Pictures in the report, and boxes in each: all from a score on or, if none has it, the best ones.
PICTURES = 6
DRAWN_SCORE, DRAWN_BOXES, LEAST_BOXES = 0.3, 20, 3


@dataclass(frozen=True)
class DetectionPage:
    """The content of the report of an evaluation.

    truth: the annotations. scores: the figures. coverage: the scored and skipped items. results:
    all detections. pictures: the images, of which some are shown; None shows none.
    """

    truth: DetectionTruth
    scores: DetectionScores
    coverage: Sequence[Coverage]
    results: Iterable[dict[str, Any]]
    pictures: AnnotatedPictures | None

    def write(self, options: DetectionOptions, about: Mapping[str, Any]) -> None:
        """Write report.json, report.md, the figures and classes.json into the folder of the
        options."""
        assert options.out is not None
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "classes.json", to_jsonable(self.scores.classes))
        protocol = self.truth.protocol(options.protocol).name
        counts = {part.unit: part.scored for part in self.coverage}
        write_report(
            options.out,
            title=f"Detections on {self.truth.path.name}, protocol {protocol}",
            metrics=self.scores.metrics,
            config={**asdict(options), **about},
            figures=self._figures(),
            data=data_fingerprint([self.truth.path], counts),
            coverage=self.coverage,
            notes=[
                f"AP of each class ({iou_type}):\n\n{class_table(rows)}"
                for iou_type, rows in self.scores.classes.items()
            ],
        )

    def _figures(self) -> dict[str, "Figure"]:
        """Draw the detections in some pictures, evenly spread over the file."""
        if not self.pictures:
            return {}
        number = min(PICTURES, len(self.pictures))
        places = np.linspace(0, len(self.pictures) - 1, number).astype(int).tolist()
        images = {self.pictures.images.records[place].id for place in places}
        found = _results_of(images, self.results)
        names = {category["id"]: category["name"] for category in self.truth.categories}

        figures = {}
        for place in places:
            picture = self.pictures[place]
            # Results of a file may belong to images that are not here.
            if not isinstance(picture, BrokenSample):
                figures[picture.name] = _figure(picture, found[picture.image_id], names)
        return figures


def class_table(rows: Sequence[ClassRow]) -> str:
    """Return a Markdown table with a row for each class that has annotations."""
    cells = [
        [
            row.name,
            row.group,
            str(row.annotations),
            show_number("AP", row.ap),
            show_number("AP50", row.ap50),
        ]
        for row in rows
        if row.annotations
    ]
    return markdown(["class", "group", "annotations", "AP", "AP50"], cells)


def _results_of(
    images: set[Any], results: Iterable[dict[str, Any]]
) -> dict[Any, list[dict[str, Any]]]:
    """Return the detections to draw in some images, best first."""
    found: dict[Any, list[dict[str, Any]]] = {image: [] for image in images}
    for one in results:
        if one["image_id"] in found:
            found[one["image_id"]].append(one)
    for image, group in found.items():
        group.sort(key=lambda one: -one["score"])
        good = sum(one["score"] >= DRAWN_SCORE for one in group)
        found[image] = group[: min(max(good, LEAST_BOXES), DRAWN_BOXES)]
    return found


def _figure(
    picture: Picture, found: Sequence[Mapping[str, Any]], names: Mapping[Any, str]
) -> "Figure":
    height, width = picture.pixels.shape[1:]
    masks = None
    if found and all("segmentation" in one for one in found):
        masks = np.stack([decode_segmentation(one["segmentation"], height, width) for one in found])
    boxes = np.array([_corners(one, masks, row) for row, one in enumerate(found)]).reshape(-1, 4)
    labels = [one["category_id"] for one in found]
    shown = list(dict.fromkeys(labels))
    return detection_figure(
        picture.pixels,
        boxes,
        [shown.index(label) for label in labels],
        [names[label] for label in shown],
        scores=[float(one["score"]) for one in found],
        masks=masks,
    )


def _corners(one: Mapping[str, Any], masks: np.ndarray | None, row: int) -> list[float]:
    """Return the box of a result as XYXY, or the box around its mask."""
    if "bbox" in one:
        left, top, width, height = one["bbox"]
        return [left, top, left + width, top + height]
    from clim_data.pixels import box_of_mask

    box = box_of_mask(masks[row]) if masks is not None else None
    return list(map(float, box)) if box is not None else [0.0] * 4
