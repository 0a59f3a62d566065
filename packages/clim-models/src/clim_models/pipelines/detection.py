"""A detector over pictures, with any names."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from clim_models.detection.rules import Detections
from clim_models.pipelines.options import PipelineOptions
from clim_models.pipelines.pictures import Source
from clim_models.pipelines.reading import ReadPicture, in_lists, is_one, read_whole
from clim_models.pipelines.region import RegionResult
from clim_models.pipelines.results import PictureResult
from clim_models.pipelines.skipping import PictureList


class Detector(Protocol):
    """The interface of a detector; all of `clim_models.detection` have it."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def detect(self, pictures: list[Tensor]) -> list[Detections]: ...


class DetectionPipeline:
    """Finds objects in pictures: boxes, names, scores, and masks where the detector has them.

    ```python
    find = clim_models.pipeline("detection", model=RUN, labels=["cat", "remote control"])
    find("photo.jpg").to_supervision()
    ```

    Args:
        detector: F-ViT, a frozen-CLIP detector, or one of Detic, with the classes to find.
        options: `batch_size`, `min_score` and `on_error` count.
    """

    def __init__(self, detector: Detector, options: PipelineOptions):
        self.detector = detector
        self.options = options
        self.labels = tuple(detector.names)

    def __call__(self, pictures: Any) -> Any:
        """Find objects in a picture, or in each picture of a list.

        Args:
            pictures: a `Source`, or a list of them.

        Returns:
            A `PictureResult`, or a list of them; regions by falling score.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read, see
                `PipelineOptions.on_error` for lists.
        """
        if is_one(pictures):
            return next(self._stream([pictures], "raise"))
        return list(self.stream(pictures))

    def stream(self, pictures: Iterable[Source]) -> Iterator[PictureResult]:
        """Yield the result of each picture in order, for lists that do not fit into memory."""
        return self._stream(pictures, self.options.on_error)

    def _stream(self, pictures: Iterable[Source], on_error: str) -> Iterator[PictureResult]:
        size = self.options.batch_size
        listed = PictureList(read_whole, on_error)
        for batch in in_lists(listed.read(pictures, ahead=size), size):
            whole = [one.pixels for one in batch if not one.error]
            found = iter(self._detect(whole) if whole else ())
            for picture in batch:
                if picture.error:
                    yield PictureResult.unread(picture, self.labels)
                else:
                    yield self._result(picture, next(found))
        listed.finish()

    @torch.inference_mode()
    def _detect(self, pictures: list[Tensor]) -> list[Detections]:
        return self.detector.detect(pictures)

    def _result(self, picture: ReadPicture, found: Detections) -> PictureResult:
        rows = found.scores >= self.options.min_score
        masks = None if found.masks is None else found.masks[rows].cpu().numpy()
        table = zip(
            found.boxes[rows].tolist(),
            found.scores[rows].tolist(),
            found.labels[rows].tolist(),
            strict=True,
        )
        regions = []
        for row, ((x0, y0, x1, y1), score, label) in enumerate(table):
            mask = None if masks is None else masks[row]
            box = (x0, y0, x1, y1)
            regions.append(RegionResult(self.labels[label], score, box, label, mask))
        return PictureResult(
            tuple(regions), self.labels, picture.size, picture.name, picture.source
        )
