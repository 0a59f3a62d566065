"""The result of a pipeline for a picture, as plain data and in the formats of other tools."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from clim_models.pipelines.drawing import draw_maps, draw_regions
from clim_models.pipelines.pictures import Source, read_picture
from clim_models.pipelines.reading import ReadPicture
from clim_models.pipelines.region import RegionResult
from clim_models.pipelines.run_lengths import encode_mask
from clim_models.pipelines.writing import write_picture


@dataclass(frozen=True)
class PictureResult(Sequence[RegionResult]):
    """The regions of one picture, as a sequence.

    Attributes:
        regions: in the order of the boxes that were given, or else by falling score.
        labels: names that were asked for; `class_id` of a region is an index into them.
        size: (height, width) of the upright picture in pixels.
        name: its path or address, or its number in the call.
        source: the picture itself, for drawing; of a URL its bytes.
        error: why the picture could not be read, "" if it was. Then there are no regions, and the
            size is (0, 0).
    """

    regions: tuple[RegionResult, ...]
    labels: tuple[str, ...]
    size: tuple[int, int]
    name: str
    source: Source = field(repr=False, compare=False)
    error: str = ""

    @classmethod
    def unread(cls, picture: ReadPicture, labels: tuple[str, ...]) -> Self:
        """Return the result of a picture that could not be read."""
        return cls((), labels, picture.size, picture.name, picture.source, picture.error)

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, place: Any) -> Any:
        return self.regions[place]

    def __iter__(self) -> Iterator[RegionResult]:
        return iter(self.regions)

    def to_coco(self, image_id: int = 1) -> dict[str, list[dict[str, Any]]]:
        """Return `images`, `categories` and `annotations` of a COCO json.

        Regions without a label are not included. Category ids count from 1, in the order of the
        labels. `coco_of_results` does the same for several pictures.
        """
        return coco_of_results([self], first_image_id=image_id)

    def to_supervision(self, *, compact: bool = True) -> Any:
        """Return `supervision.Detections`: boxes, confidence, class ids and names, and masks.

        A region without a label has class id -1 and an empty name.

        Args:
            compact: masks become run lengths where this supervision has them.

        Raises:
            ImportError: supervision is not installed; the message has the `pip install` line.
        """
        from clim_models.pipelines.to_supervision import detections_of

        return detections_of(self.regions, self.size, compact=compact)

    def plot(self, path: str | Path | None = None) -> Image.Image:
        """Draw the regions with their names and scores on the picture.

        Args:
            path: file to write, jpg, png or webp; None writes none.

        Returns:
            The drawing, at the size of the picture; small pictures are enlarged.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read, or a path of another
                format.
        """
        drawing = draw_regions(read_picture(self.source, name=self.name), self.regions)
        return write_picture(drawing, path)


@dataclass(frozen=True)
class DenseResult(PictureResult):
    """The places of each label in a picture: maps, their peaks, and the regions around the peaks.

    Attributes:
        maps: float32 (K, h, w), cosine of each label with each patch; they cover the whole picture.
            Empty where the picture could not be read.
        peaks: (x, y) in pixels of the largest value of each map, the centre of its patch.
    """

    maps: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1)), repr=False, compare=False)
    peaks: tuple[tuple[float, float], ...] = ()

    def plot(self, path: str | Path | None = None) -> Image.Image:
        """Draw the map of each label, all on one scale, with its peak as a dot.

        Args:
            path: file to write, jpg, png or webp; None writes none.
        """
        pixels = read_picture(self.source, name=self.name)
        return write_picture(draw_maps(pixels, self.maps, self.labels, self.peaks), path)


def coco_of_results(
    results: Sequence[PictureResult], *, first_image_id: int = 1
) -> dict[str, list[dict[str, Any]]]:
    """Return `images`, `categories` and `annotations` of several pictures, ready for `json.dump`.

    Args:
        results: of one pipeline; all have the same labels. Pictures that could not be read are left
            out; the others have the ids of their places all the same.
        first_image_id: ids of images count from here, those of annotations and categories from 1.

    Raises:
        ValueError: the results have different labels.
    """
    if len({one.labels for one in results}) > 1:
        raise ValueError("the results have different labels: pass those of one pipeline")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, one in enumerate(results, first_image_id):
        if one.error:
            continue
        height, width = one.size
        images.append({"id": image_id, "file_name": one.name, "width": width, "height": height})
        for region in one:
            if region.label is not None:
                record = {"id": len(annotations) + 1, "image_id": image_id, **_record(region)}
                annotations.append(record)
    labels = results[0].labels if results else ()
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _record(region: RegionResult) -> dict[str, Any]:
    """Return category, box, area, score and mask of a region as COCO has them."""
    x0, y0, x1, y1 = region.box
    width, height = x1 - x0, y1 - y0
    area = width * height if region.mask is None else int(region.mask.sum())
    record: dict[str, Any] = {
        "category_id": region.class_id + 1,
        "bbox": [round(value, 3) for value in (x0, y0, width, height)],
        "area": round(area, 3),
        "iscrowd": 0,
        # Scores of rare classes may be small, and ties change the order.
        "score": float(f"{region.score:.7g}"),
    }
    if region.mask is not None:
        record["segmentation"] = encode_mask(region.mask)
    return record
