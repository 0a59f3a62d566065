"""Visual chain of thought: find the part of the image that matters, look at it closely, then answer
(F-LMM).

Three ways: the LMM first says which object matters and that thought is grounded ("thought"), the
question's own words are grounded ("question"), or it answers at once (None).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data.pixels import box_of_mask
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.tokenizer import plain_decoder, prompt_ids, tokenizer_of
from flmm.grounded import GroundedLMM
from flmm.pictures.files import read_image
from flmm.refiners.embedding import ImageEmbedding
from flmm.samples import prepare_image
from flmm.text.tokens import TokenizedText

FOCUSES = ("thought", "question", None)
THINK = "First think which object in this image is most relevant to the question."
BEGIN_THOUGHT = " The object most relevant to the question is"
LEAST_HALF_EXTENT_PX = 8


@dataclass(frozen=True)
class VisualAnswer:
    """An answer and its basis.

    thought: what the LMM thought of, "" unless the focus is "thought". mask: (H, W) logits of the
    part that matters, None without a focus, or where the LMM had no thought. box: (x0, y0, x1, y1)
    in pixels, of the part that was looked at.
    """

    answer: str
    thought: str
    mask: Tensor | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class LookOptions:
    """Options of the closer look.

    focus: "thought" grounds the LMM's thought, "question" the question's own words; None looks
    nowhere. refine: SAM refines the mask before its box is taken. suffix: text after the question,
    such as "\\nAnswer the question using a single word or phrase.". box_scale: factor of the box's
    size about its centre. max_thought_tokens, max_new_tokens: longest thought and answer.

    Raises:
        ValueError: an option is out of range.
    """

    focus: str | None = "thought"
    refine: bool = True
    suffix: str = ""
    box_scale: float = 1.0
    max_thought_tokens: int = 16
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if self.focus not in FOCUSES:
            known = ", ".join(map(repr, FOCUSES))
            raise ValueError(f"focus={self.focus!r}; legal values are {known}")
        if not self.box_scale > 0:
            raise ValueError(f"box_scale={self.box_scale}: pass a positive factor")
        for name in ("max_thought_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: pass 1 or more")


@torch.no_grad()
def visual_answer(
    model: GroundedLMM,
    image: Image.Image | str | Path,
    question: str,
    *,
    look: LookOptions | None = None,
    embedding: ImageEmbedding | None = None,
) -> VisualAnswer:
    """Answer a question after a closer look, greedily.

    Args:
        image: a picture in memory, or its file. Mask and box are those of the upright picture.
        look: options of the look; None for the defaults.
        embedding: SAM's embedding of the image; None computes it on demand.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no image, no tokenizer, or no room in the LMM's context.
    """
    look = look or LookOptions()
    image = read_image(image)
    asked = question + look.suffix
    whole = (0, 0, image.width, image.height)
    if look.focus is None:
        prompt = model.lmm.family.style.prompt(asked)
        return VisualAnswer(_say(model, [image], prompt, look.max_new_tokens), "", None, whole)

    thought, features = "", None
    if look.focus == "thought":
        thought, features = _think(model, image, question, look.max_thought_tokens)
    else:
        features = _question_features(model, image, question)

    mask, box = None, whole
    if features is not None:
        mask = _mask(model, embedding or image, features, refine=look.refine)
        box = mask_box(mask > 0, scale=look.box_scale)
    views = [image, image.crop(box)]
    answer = _say(model, views, _closer_look(model, asked), look.max_new_tokens)
    return VisualAnswer(answer, thought, mask, box)


def mask_box(mask: Tensor, *, scale: float = 1.0) -> tuple[int, int, int, int]:
    """Return the box (x0, y0, x1, y1) in pixels around a bool mask (H, W): 8 px or more to each
    side of its centre, times `scale`.

    It runs from the first to the last pixel's index, is clipped to the image and rounded down; the
    whole image for an empty mask.
    """
    height, width = mask.shape
    box = box_of_mask(mask.cpu().numpy())
    if box is None:
        return 0, 0, width, height
    x0, x1 = _grown(box[0], box[2] - 1, width, scale)
    y0, y1 = _grown(box[1], box[3] - 1, height, scale)
    return x0, y0, x1, y1


def _grown(first: int, last: int, limit: int, scale: float) -> tuple[int, int]:
    """Return a span grown about its centre, inside [0, limit]; both ends are pixel indices."""
    centre = (first + last) / 2
    half = max((last - first) / 2, LEAST_HALF_EXTENT_PX) * scale
    return int(max(centre - half, 0)), int(min(centre + half, limit))


def _think(
    model: GroundedLMM, image: Image.Image, question: str, max_tokens: int
) -> tuple[str, PhraseFeatures | None]:
    """Return the LMM's words for the object that matters, and their features; None if the answer is
    empty."""
    lmm = model.lmm
    decode = plain_decoder(tokenizer_of(lmm))
    ids = prompt_ids(
        lmm, lmm.family.style.prompt(f"{question}{THINK}") + BEGIN_THOUGHT, system=False
    )
    said = lmm.generate(
        [prepare_image(lmm.family, image)],
        ids,
        max_new_tokens=max_tokens,
        stop=lambda so_far: decode(so_far.tolist()).endswith("."),
    )
    known = len(said.maps)
    thought = decode(said.ids[:known].tolist())
    return thought, said.phrases([(0, known)], merge=model.merge) if known else None


def _question_features(model: GroundedLMM, image: Image.Image, question: str) -> PhraseFeatures:
    """Return the features of the question's own words, read after the image."""
    lmm, style = model.lmm, model.lmm.family.style
    # A second image token marks where the question ends: what follows it in the template is not
    # read.
    opened = style.template.partition("{input}")[0] + style.question(question) + style.image_token
    ids = prompt_ids(lmm, opened, system=False)
    first, end = (ids == lmm.family.image_token_id).nonzero().flatten().tolist()
    # Special tokens, such as an image's end, are no words of the question.
    special = torch.isin(ids[:end], torch.tensor(lmm.tokenizer.all_special_ids))
    owners = torch.where((torch.arange(end) > first) & ~special, 0, -1)

    text = TokenizedText(ids[:end], owners, end)
    (features,) = lmm([Sample(prepare_image(lmm.family, image), text)], merge=model.merge)
    return features


def _mask(
    model: GroundedLMM,
    image: Image.Image | ImageEmbedding,
    features: PhraseFeatures,
    *,
    refine: bool,
) -> Tensor:
    """Return the logits (H, W) of the only phrase."""
    size = image.size if isinstance(image, ImageEmbedding) else (image.height, image.width)
    coarse = model.coarse_masks(features)[None]
    coarse = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]  # (1, H, W)
    if not refine:
        return coarse[0]
    (refined,) = model.sam([image], [coarse], [model.text_embeddings(features)])
    return refined[0]


def _closer_look(model: GroundedLMM, question: str) -> str:
    """Write a prompt about two images: the whole and its part."""
    style = model.lmm.family.style
    parts = (
        "the whole image, ",
        f"the image region that might help you answer the question: {question}",
    )
    return style.template.replace("{input}", "".join(style.question(part) for part in parts))


def _say(model: GroundedLMM, images: list[Image.Image], prompt: str, max_new_tokens: int) -> str:
    lmm = model.lmm
    ids = prompt_ids(lmm, prompt)
    said = lmm.generate(
        [prepare_image(lmm.family, image) for image in images], ids, max_new_tokens=max_new_tokens
    )
    return plain_decoder(tokenizer_of(lmm))(said.ids.tolist())
