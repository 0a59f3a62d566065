"""Names for regions of pictures, and maps of labels, by a CLIP with dense features.

Letters: B pictures, K labels, M phrases under `not`, R regions of a batch, n of one picture,
C channels, h w positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from clim_models.features import Dense, Request, request_named
from clim_models.pipelines.given_boxes import (
    boxes_of_window,
    corners,
    relative_boxes,
    sides_of,
)
from clim_models.pipelines.options import PipelineOptions
from clim_models.pipelines.peaks import Peaks, boxes_of_regions, find_peaks
from clim_models.pipelines.pictures import Source
from clim_models.pipelines.reading import (
    ReadPicture,
    by_shape,
    in_lists,
    is_one,
    read_fitted,
)
from clim_models.pipelines.region import RegionResult
from clim_models.pipelines.results import DenseResult, PictureResult
from clim_models.pipelines.skipping import PictureList
from clim_models.region_model import RegionModel
from clim_models.text.vocabulary import REJECTED, EmbeddedVocabulary
from clim_models.towers.evaluation import evaluation_mode

# Batches of pictures that are sorted by their shape together.
WINDOW = 4
# Two regions of one label that overlap more are one.
OVERLAP = 0.5
Result = TypeVar("Result", bound=PictureResult)


class ClipPipeline:
    """The parts that both pipelines of a CLIP share: reading, batches of one shape, and order.

    Args:
        model: in evaluation mode or not; a call is in evaluation and inference mode of its own.
        vocabulary: the labels, embedded by the model.
        options: see `PipelineOptions`.
    """

    def __init__(
        self, model: RegionModel, vocabulary: EmbeddedVocabulary, options: PipelineOptions
    ):
        self.model = model
        self.vocabulary = vocabulary
        self.options = options
        self.labels = vocabulary.vocabulary.names
        self.image_px: int = options.image_px or model.eval_px or max(model.image_size)

    def _windows(self, pictures: Iterable[Source], on_error: str) -> Iterator[list[ReadPicture]]:
        """Yield windows of pictures at the size of the network; at the end say what was skipped."""
        size = self.options.batch_size
        read = partial(read_fitted, longest=self.image_px, stride=self.model.stride)
        listed = PictureList(read, on_error)
        yield from in_lists(listed.read(pictures, ahead=2 * size), WINDOW * size)
        listed.finish()

    def _results(
        self,
        window: Sequence[ReadPicture],
        kind: type[Result],
        batch: Callable[[list[int]], Sequence[Result]],
    ) -> Iterator[Result]:
        """Yield the result of each picture of a window, in order.

        Args:
            kind: the type of the results.
            batch: makes the results of the pictures at some places, which have one shape.
        """
        found: dict[int, Result] = {}
        for places in by_shape(window, self.options.batch_size):
            found.update(zip(places, batch(places), strict=True))
        for place, picture in enumerate(window):
            yield found[place] if place in found else kind.unread(picture, self.labels)

    def _encode(
        self, pictures: Sequence[ReadPicture], requests: Sequence[Request], **regions: Any
    ) -> dict[Request, Tensor]:
        pixels = self.model.normalize_pixels(torch.stack([one.pixels for one in pictures]))
        return self.model.encode(pixels, requests, **regions)

    def _maps(self, dense: Tensor) -> Tensor:
        """Compare each position with each label: (B, C, h, w) -> cosines (B, K, h, w)."""
        embeddings = self.vocabulary.embeddings.to(dense.device)
        return torch.einsum("kc,bchw->bkhw", embeddings, dense.float())


class RegionPipeline(ClipPipeline):
    """Names boxes of pictures; without boxes it looks for regions first.

    The score of a region is the probability of its label among all labels (softmax of cosines times
    the model's temperature), with the phrases under `not`. With one label and no such phrase it is
    always 1: give other labels to choose from.

    ```python
    name_regions = clim_models.pipeline("region-classification", pretrained=RUN, labels=NAMES)
    for region in name_regions("photo.jpg", boxes=[(10, 20, 200, 180)]):
        print(region.label, region.score)
    ```
    """

    def __call__(self, pictures: Any, boxes: Any = None) -> Any:
        """Name the regions of a picture, or of each picture of a list.

        Args:
            pictures: a `Source`, or a list of them.
            boxes: of one picture (n, 4), of a list one such per picture; XYXY in pixels of the
                upright picture. None looks for regions: those around the peak of each label's map,
                which are rough. Boxes of a detector or of proposals name more.

        Returns:
            A `PictureResult`, or a list of them. Regions are in the order of the boxes; those that
            were looked for by falling score.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read (of lists see
                `PipelineOptions.on_error`), or boxes that do not fit.
        """
        if is_one(pictures):
            return next(self._stream([pictures], None if boxes is None else [boxes], "raise"))
        return list(self.stream(pictures, boxes))

    def stream(
        self, pictures: Iterable[Source], boxes: Iterable[Any] | None = None
    ) -> Iterator[PictureResult]:
        """Yield the result of each picture in order, for lists that do not fit into memory.

        Args:
            pictures, boxes: as in a call, of several pictures.
        """
        return self._stream(pictures, boxes, self.options.on_error)

    def _stream(
        self, pictures: Iterable[Source], boxes: Iterable[Any] | None, on_error: str
    ) -> Iterator[PictureResult]:
        given = None if boxes is None else iter(boxes)
        for window in self._windows(pictures, on_error):
            own = None if given is None else boxes_of_window(given, window)
            yield from self._results(window, PictureResult, partial(self._at, window, own))
        if given is not None and next(given, None) is not None:
            raise ValueError("there are boxes of more pictures than pictures: pass as many")

    def _at(
        self, window: Sequence[ReadPicture], boxes: Sequence[Tensor] | None, places: list[int]
    ) -> list[PictureResult]:
        """Return the results of the pictures at some places, which have one shape."""
        chosen = [window[place] for place in places]
        return self._batch(chosen, None if boxes is None else [boxes[place] for place in places])

    @torch.inference_mode()
    def _batch(
        self, pictures: Sequence[ReadPicture], boxes: Sequence[Tensor] | None
    ) -> list[PictureResult]:
        with evaluation_mode(self.model):
            looked_for = boxes is None
            if boxes is None:
                boxes = self._look_for_boxes(pictures)
            device = self.model.device
            relative = [relative_boxes(box, one).to(device) for box, one in zip(boxes, pictures)]
            request = request_named(self.options.features)
            features = self._encode(pictures, [request], boxes=relative)[request].float()  # (R, C)
        counts = [len(box) for box in boxes]
        ids, scores, cosines = (part.cpu().split(counts) for part in self._name(features))
        results = []
        for row, picture in enumerate(pictures):
            found = self._regions(boxes[row], ids[row], scores[row], cosines[row])
            if looked_for:
                found = self._best(found)
            results.append(
                PictureResult(tuple(found), self.labels, picture.size, picture.name, picture.source)
            )
        return results

    def _name(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return label, score and cosine of each feature (R, C): (R,) each."""
        found = self.vocabulary
        labels, cosines = found.label(features)
        columns = torch.cat([found.embeddings, found.rejects])  # (K + M, C)
        logits = self.model.logit_scale.exp().float() * F.normalize(features, dim=-1) @ columns.T
        best = (features @ found.embeddings.T).argmax(dim=-1)
        scores = logits.softmax(dim=-1).gather(1, best[:, None])[:, 0]
        return labels, scores, cosines

    def _regions(
        self, boxes: Tensor, ids: Tensor, scores: Tensor, cosines: Tensor
    ) -> list[RegionResult]:
        rows = zip(boxes.tolist(), ids.tolist(), scores.tolist(), cosines.tolist(), strict=True)
        return [
            RegionResult(
                None if label == REJECTED else self.labels[label],
                score,
                corners(box),
                class_id=label,
                cosine=cosine,
            )
            for box, label, score, cosine in rows
        ]

    def _look_for_boxes(self, pictures: Sequence[ReadPicture]) -> list[Tensor]:
        """Return boxes (n, 4) in pixels around the peaks of all labels in each picture."""
        dense = self._encode(pictures, [Dense()])[Dense()]
        maps = self._maps(dense)
        peaks = find_peaks(maps.flatten(0, 1))
        found = boxes_of_regions(peaks.regions).unflatten(0, maps.shape[:2]).cpu()  # (B, K, 4)
        useful = peaks.useful.unflatten(0, maps.shape[:2]).cpu()
        return [
            box[keep] * sides_of(picture)
            for box, keep, picture in zip(found, useful, pictures, strict=True)
        ]

    def _best(self, found: Sequence[RegionResult]) -> list[RegionResult]:
        """Drop regions without a label or with a low score, and doubles of one label; best
        first."""
        least = self.options.min_score
        named = [one for one in found if one.label is not None and one.score >= least]
        if not named:
            return []
        boxes = torch.tensor([one.box for one in named])
        scores = torch.tensor([one.score for one in named])
        ids = torch.tensor([one.class_id for one in named])
        return [named[row] for row in batched_nms(boxes, scores, ids, OVERLAP).tolist()]


class DensePipeline(ClipPipeline):
    """Compares every patch of a picture with every label.

    The score of a region is the cosine at its peak, 0 where that is negative: it compares labels
    and pictures, and is not a probability.

    ```python
    where_is = clim_models.pipeline("dense", pretrained=RUN, labels=["a red car", "a tram"])
    where_is("photo.jpg").plot("where.png")
    ```
    """

    def __call__(self, pictures: Any) -> Any:
        """Compare a picture, or each picture of a list, with the labels.

        Args:
            pictures: a `Source`, or a list of them.

        Returns:
            A `DenseResult`, or a list of them. Its regions are those around the peaks of labels at
            half of their height over the mean, by falling score; a label whose region covers more
            than a third of the picture has a peak and no region.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read; of lists see
                `PipelineOptions.on_error`.
        """
        if is_one(pictures):
            return next(self._stream([pictures], "raise"))
        return list(self.stream(pictures))

    def stream(self, pictures: Iterable[Source]) -> Iterator[DenseResult]:
        """Yield the result of each picture in order, for lists that do not fit into memory."""
        return self._stream(pictures, self.options.on_error)

    def _stream(self, pictures: Iterable[Source], on_error: str) -> Iterator[DenseResult]:
        for window in self._windows(pictures, on_error):
            yield from self._results(window, DenseResult, partial(self._at, window))

    def _at(self, window: Sequence[ReadPicture], places: list[int]) -> list[DenseResult]:
        """Return the results of the pictures at some places, which have one shape."""
        return self._batch([window[place] for place in places])

    @torch.inference_mode()
    def _batch(self, pictures: Sequence[ReadPicture]) -> list[DenseResult]:
        with evaluation_mode(self.model):
            dense = self._encode(pictures, [Dense()])[Dense()]
        maps = self._maps(dense).cpu()  # (B, K, h, w)
        found = find_peaks(maps.flatten(0, 1))
        columns = [part.split(len(self.labels)) for part in found]
        parts = [Peaks(*own) for own in zip(*columns)]
        return [self._result(*one) for one in zip(pictures, maps, parts, strict=True)]

    def _result(self, picture: ReadPicture, maps: Tensor, peaks: Peaks) -> DenseResult:
        sides = sides_of(picture)
        boxes = (boxes_of_regions(peaks.regions) * sides).tolist()
        regions = [
            RegionResult(
                label,
                min(max(value, 0.0), 1.0),
                corners(boxes[row]),
                class_id=row,
                cosine=value,
            )
            for row, (label, value) in enumerate(zip(self.labels, peaks.values.tolist()))
            if bool(peaks.useful[row]) and value >= self.options.min_score
        ]
        regions.sort(key=lambda region: -region.score)

        height, width = maps.shape[1:]
        across = ((peaks.columns + 0.5) / width * sides[0]).tolist()
        down = ((peaks.rows + 0.5) / height * sides[1]).tolist()
        return DenseResult(
            tuple(regions),
            self.labels,
            picture.size,
            picture.name,
            picture.source,
            maps=maps.numpy(),
            peaks=tuple(zip(across, down, strict=True)),
        )
