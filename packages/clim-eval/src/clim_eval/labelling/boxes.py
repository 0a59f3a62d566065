"""Nouns for boxes: a CLIP compares each box with all nouns of a list, or with the nouns in the
image's captions.

This is how RegionCLIP (arXiv 2112.09106, section 3.2) makes region-text pairs out of images without
box labels. Where an image has captions, only nouns that occur in them are candidates
(`clim_eval.labelling.nouns`).

Letters: B images, n_i boxes of image i, N all boxes of a batch, K nouns, C channels, S square input
side, c crop side.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from clim_data import BrokenSample
from clim_data.matching import BoxTable, CaptionTable
from clim_data.pixels import open_image
from clim_data.sources import SampleStore
from clim_models import RegionModel
from torch import Tensor
from torch.utils.data import Dataset

from clim_eval.evaluators.box_features import BoxCutter, BoxEncoder, BoxInputs
from clim_eval.labelling.nouns import NounFinder


@dataclass(frozen=True, kw_only=True)
class BoxView(BoxInputs):
    """The inputs of a model for the boxes of one image.

    number: of the sample in its store. captions: its texts; empty when they are unknown.
    """

    number: int
    captions: list[str]


@dataclass(frozen=True)
class NamedBoxes:
    """The names of one image's boxes: m of its n boxes, best first.

    rows: (m,) which boxes. nouns: (m,) indices of nouns. scores: (m,) probabilities. cosines: (m,).
    captioned: whether captions restricted the nouns. candidates: number of possible nouns. boxes:
    n. below_min_score: number of boxes with a lower score. rejected: number of boxes closest to a
    phrase that never wins.
    """

    number: int
    rows: list[int]
    nouns: list[int]
    scores: list[float]
    cosines: list[float]
    captioned: bool
    candidates: int
    boxes: int = 0
    below_min_score: int = 0
    rejected: int = 0


class BoxViews(Dataset):
    """The images of a store with their boxes. An item is a BoxView, or the BrokenSample of an
    unusable image.

    Args:
        store, table: of `clim_data.matching.boxes.load_boxes`; sample i has the boxes of image i of
            the table.
        captions: the captions of every sample.
        crop_px, image_px: side of the crops, or of the whole images; the other is None.
        context: window of a crop in sizes of its box.

    Raises ValueError when both or neither are given.
    """

    def __init__(
        self,
        store: SampleStore,
        table: BoxTable,
        captions: CaptionTable,
        *,
        crop_px: int | None = None,
        image_px: int | None = None,
        context: float = 1.5,
    ):
        self.store, self.table, self.captions = store, table, captions
        self.left_out = tuple(store.skipped.faults)  # before any image is read
        self.cutter = BoxCutter(crop_px, image_px, context)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> BoxView | BrokenSample:
        try:
            return self._view(i)
        except BrokenSample as fault:
            return fault

    def _view(self, i: int) -> BoxView:
        sample = self.store.read(i)
        captions = self.captions.of(sample)
        image = open_image(sample.image, sample.name)
        boxes, _, warning = self.table.of_image(sample, image)
        if warning is not None:
            self.store.skipped.add(warning)
        found = self.cutter.cut(image, boxes)
        return BoxView(
            boxes=found.boxes, image=found.image, crops=found.crops, number=i, captions=captions
        )


class BoxNamer:
    """A CLIP that names the boxes of images.

    The score of a box is the probability of its noun among *all* nouns (softmax of cosines times
    the model's temperature), also where captions leave few candidates: a box on no object then
    scores low, although one of few candidates is always the best of them.

    Args:
        model: RegionModel.
        embeddings: (K, C) of the nouns; normalised here.
        finder: gives the nouns of captions (see `clim_eval.labelling.nouns.NounFinder`).
        features: one of `BOX_FEATURES`: "crops" encodes each box's crop as an image of its own, the
            others are readouts of the whole image.
        min_score: boxes with a lower score are dropped.
        max_boxes: maximum number of boxes per image, the ones with the best scores; None for all.
        batch_size: as in `BoxEncoder`.
        rejects: (M, C) of phrases that compete with all nouns and never win; boxes closest to one
            of them get no name. None for none.

    Raises ValueError for options out of range.
    """

    def __init__(
        self,
        model: RegionModel,
        embeddings: Tensor,
        finder: NounFinder,
        *,
        rejects: Tensor | None = None,
        features: str = "crops",
        min_score: float = 0.0,
        max_boxes: int | None = 20,
        batch_size: int | None = None,
    ):
        if not 0 <= min_score < 1:
            raise ValueError(f"min_score={min_score} must be a probability from 0 to below 1")
        if max_boxes is not None and max_boxes < 1:
            raise ValueError(f"max_boxes={max_boxes} must be at least 1, or None for all boxes")
        self.model, self.finder = model, finder
        self.encoder: BoxEncoder[BoxView] = BoxEncoder(model, features, batch_size)
        self.num_nouns = len(embeddings)
        columns = embeddings if rejects is None else torch.cat([embeddings, rejects])
        self.embeddings = F.normalize(columns.float(), dim=-1).to(model.device)  # (K + M, C)
        self.min_score, self.max_boxes = min_score, max_boxes

    def name(self, views: Iterable[BoxView]) -> Iterator[NamedBoxes]:
        """Name the boxes of each image, in the order of the images."""
        for batch in self.encoder.batches(views):
            yield from self._name_batch(batch)

    @torch.no_grad()
    def _name_batch(self, views: Sequence[BoxView]) -> list[NamedBoxes]:
        features = self.encoder.encode(views)  # (N, C)
        cosines = features @ self.embeddings.T  # (N, K + M)
        probabilities = (self.model.logit_scale.exp().float() * cosines).softmax(dim=-1)
        sizes = [len(view.boxes) for view in views]
        return [
            self._best(view, own_cosines, own)
            for view, own_cosines, own in zip(
                views, cosines.split(sizes), probabilities.split(sizes), strict=True
            )
        ]

    def _best(self, view: BoxView, cosines: Tensor, probabilities: Tensor) -> NamedBoxes:
        """Name one image's boxes by their cosines and probabilities, (n, K + M) both."""
        candidates = torch.arange(self.num_nouns)
        if view.captions:
            candidates = torch.tensor(self.finder.find(view.captions), dtype=torch.int64)
        captioned, number = bool(view.captions), len(candidates)
        if not number:
            return NamedBoxes(view.number, [], [], [], [], captioned, 0, len(view.boxes))
        # Compared by cosine, because the probabilities of unlikely candidates may all be rounded to
        # zero.
        best_cosines, place = cosines[:, candidates.to(cosines.device)].max(dim=1)  # (n,)
        nouns = candidates.to(place.device)[place]
        scores = probabilities.gather(1, nouns[:, None])[:, 0]
        rejected = torch.zeros_like(scores, dtype=torch.bool)
        if cosines.shape[1] > self.num_nouns:
            rejected = cosines[:, self.num_nouns :].amax(dim=1) > best_cosines

        order = scores.sort(descending=True, stable=True).indices
        usable = (scores >= self.min_score) & ~rejected
        order = order[usable[order]][: self.max_boxes]
        return NamedBoxes(
            number=view.number,
            rows=order.tolist(),
            nouns=nouns[order].tolist(),
            scores=scores[order].tolist(),
            cosines=best_cosines[order].tolist(),
            captioned=captioned,
            candidates=number,
            boxes=len(view.boxes),
            below_min_score=int(((scores < self.min_score) & ~rejected).sum()),
            rejected=int(rejected.sum()),
        )
