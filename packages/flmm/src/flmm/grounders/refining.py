"""Parts that grounders without trained heads share: refining the coarse masks of a user's picture
or of the samples of a data set.

Letters: N phrases of an image, p q grid of coarse logits, H W pixels of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import GroundingSample
from PIL import Image
from torch import Tensor, nn

from flmm.grounders.grounder import ScoredMasks
from flmm.pictures.orientation import orientation_of, turn_back, turn_places_back
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import NOTHING, Refiner
from flmm.refiners.sam.load import load_refiner
from flmm.refiners.square import ResizedImage, Square


def box_refiner(source: str | Path, *, device: str = "cpu") -> Refiner:
    """Load a refiner that takes only the box of a coarse mask.

    SAM was pretrained for boxes, and neither for words nor for coarse masks.

    Args:
        source: as `load_refiner` takes it; "none" leaves masks coarse.
    """
    refiner = load_refiner(source, use_text=False, use_mask=False)
    assert isinstance(refiner, nn.Module)
    refiner.to(device).eval()
    return refiner


@dataclass(frozen=True)
class SampleImage:
    """An image of a data set for a refiner. image_id: its number in the data set."""

    image_id: int
    resized: ResizedImage

    @classmethod
    def of(cls, sample: GroundingSample, image: Image.Image, square: Square) -> "SampleImage":
        """Resize the image of a sample for a refiner of this square."""
        return cls(sample.image_id, ResizedImage.of(image, square))


class EmbeddedImages:
    """Embeds the images of a data set once for all samples in a row that have them."""

    def __init__(self, refiner: Refiner):
        self._refiner = refiner
        self._known: dict[int, ImageEmbedding] = {}

    def __call__(self, images: Sequence[SampleImage]) -> list[ImageEmbedding]:
        """Embed the images that the call before did not have, and forget those it alone had."""
        wanted = {image.image_id: image.resized for image in images}
        new = [number for number in wanted if number not in self._known]
        made = self._refiner.embed([wanted[number] for number in new]) if new else []
        known = self._known | dict(zip(new, made, strict=True))
        self._known = {number: known[number] for number in wanted}
        return [self._known[image.image_id] for image in images]


@torch.no_grad()
def refine_found(
    refiner: Refiner,
    images: Sequence[Image.Image | ImageEmbedding],
    coarse: Sequence[Tensor],
) -> list[ScoredMasks]:
    """Refine the coarse masks that are not empty; the others stay empty and have the score 0.

    Args:
        images: B pictures, or their embeddings.
        coarse: per image logits (N, p, q); a mask without a positive logit is empty.

    Returns:
        Per image the masks, and as scores the IoU that the refiner expects of each.
    """
    found = [(logits > 0).flatten(1).any(1) for logits in coarse]
    busy = [i for i, flags in enumerate(found) if flags.any()]
    refined = {}
    if busy:
        parts = [coarse[i][found[i]] for i in busy]
        made = refiner.refine([images[i] for i in busy], parts)
        refined = dict(zip(busy, made, strict=True))

    scored = []
    for i, (image, flags) in enumerate(zip(images, found, strict=True)):
        height, width = image.size if isinstance(image, ImageEmbedding) else image.size[::-1]
        masks = torch.full((len(flags), height, width), NOTHING, device=flags.device)
        scores = torch.zeros(len(flags), device=flags.device)
        if i in refined:
            masks[flags] = refined[i].masks.to(masks)
            scores[flags] = refined[i].ious.to(scores)
        scored.append(ScoredMasks(masks, scores))
    return scored


def laid_on(masks: ScoredMasks, given: Image.Image | str | Path | ImageEmbedding) -> ScoredMasks:
    """Return masks of the upright picture on the picture as it was passed; see `ground_phrases`."""
    turn, size = orientation_of(given), masks.masks.shape[-2:]
    places = None
    if masks.places is not None:
        places = tuple(turn_places_back(found, size, turn) for found in masks.places)
    return ScoredMasks(turn_back(masks.masks, turn), masks.scores, masks.kind, places)
