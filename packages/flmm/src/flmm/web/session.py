"""The functions of the page without HTTP: pictures, questions and phrases in; words, masks and
attention out.

Letters: N phrases, H W pixels of the picture, h w the grid of an attention map.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data.pixels import decode_segmentation
from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures
from flmm.dialogue.answers import NoPhrasesError, ask, ground_answer
from flmm.dialogue.streaming import OnText
from flmm.dialogue.visual_cot import FOCUSES, LookOptions, visual_answer
from flmm.grounded import GroundedLMM, Grounding
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.heads import phrase_features
from flmm.grounders.images import masks_as_json, save_grounding
from flmm.pictures.mean_attention import mean_attention
from flmm.refiners.embedding import ImageEmbedding
from flmm.text.phrases import Chunker, Span, noun_chunks
from flmm.web.recent import RecentItems
from flmm.web.upload import Upload, read_upload

# The attention of 512 tokens of a 7B LMM in bfloat16 is 0.6 GB for LLaVA-1.5 and up to 3 GB for
# LLaVA-NeXT.
ANSWER_BYTES_KEPT = 4 << 30
PICTURES_KEPT = 64
RESULTS_KEPT = 256


@dataclass
class Picture:
    """A picture, and SAM's embedding of it once something was grounded in it."""

    upload: Upload
    embedding: ImageEmbedding | None = None

    @property
    def image(self) -> Image.Image:
        return self.upload.image


@dataclass(frozen=True)
class Turn:
    """A stored answer with its features. picture: its picture."""

    picture: Picture
    question: str
    answer: Answer


@dataclass(frozen=True)
class GroundedPhrases:
    """Phrases and their masks.

    result: its name for `Demo.files`. text: of the answer, "" for phrases of the user. phrases: N
    texts. spans: the characters (start, end) of each in the text. masks: bool (N, H, W). attention:
    float32 (N, h, w), see `flmm.pictures.mean_attention`. doubtful: whether each phrase is probably
    absent. record: plain data, see `flmm.grounders.images.masks_as_json`, with scores.
    """

    result: str
    text: str
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    masks: np.ndarray
    attention: np.ndarray
    doubtful: tuple[bool, ...]
    record: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class AnsweredQuestion:
    """An answer and the masks of its phrases.

    name: of the answer, for `Demo.mark`. remembered: number of earlier turns in the prompt.
    found: None where the answer names no present thing.
    """

    name: str
    text: str
    remembered: int
    found: GroundedPhrases | None


@dataclass(frozen=True)
class CloserLook:
    """Visual chain of thought. mask: bool (H, W) of what matters, None where the LMM had no
    thought.

    box: (x0, y0, x1, y1) in pixels, of what was looked at; crop: that part.
    """

    question: str
    thought: str
    answer: str
    mask: np.ndarray | None
    box: tuple[int, int, int, int]
    crop: Image.Image


class Demo:
    """One model and its recent results. Methods that run the model must not run at the same time.

    The frozen LMM runs once for an answer and SAM's image encoder once for a picture, for any
    number of groundings.

    Args:
        model: of `flmm.load_grounded`.
        max_new_tokens: longest answer, as `flmm.ask` takes it.
        min_score: phrases with a lower score are not found.
        chunker: finds the phrases of an answer.
    """

    def __init__(
        self,
        model: GroundedLMM,
        *,
        max_new_tokens: int | None = None,
        min_score: float = 0.0,
        chunker: Chunker = noun_chunks,
    ):
        self.model, self.chunker = model, chunker
        self.max_new_tokens, self.min_score = max_new_tokens, min_score
        self._pictures: RecentItems[Picture] = RecentItems(
            PICTURES_KEPT, "this picture is no longer kept: choose it again"
        )
        self._answers: RecentItems[Turn] = RecentItems(
            ANSWER_BYTES_KEPT, "this answer is no longer kept: ask again", size=_answer_bytes
        )
        self._results: RecentItems[tuple[Picture, dict]] = RecentItems(
            RESULTS_KEPT, "these masks are no longer kept: make them again"
        )

    def add_picture(self, data: bytes, name: str = "the file") -> tuple[str, Upload]:
        """Read a picture from the bytes of its file; return its name here, and the picture.

        Raises ValueError as `read_upload`.
        """
        upload = read_upload(data, name)
        return self._pictures.add(Picture(upload)), upload

    def answer(
        self,
        picture: str,
        question: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        on_text: OnText | None = None,
    ) -> AnsweredQuestion:
        """Answer a question and ground the phrases of the answer.

        Args:
            history, on_text: see `flmm.ask`.

        Raises:
            ValueError: no picture, no question, too long for the LMM, or it said nothing.
        """
        shown, question = self.check_question(picture, question)
        answer = ask(
            self.model.lmm,
            shown.image,
            question,
            history=history,
            max_new_tokens=self.max_new_tokens,
            on_text=on_text,
        )
        if not answer.text.strip():
            raise ValueError("the model said nothing: ask in other words")
        name = self._answers.add(Turn(shown, question, answer))
        try:
            found = self.mark(name)
        except NoPhrasesError:
            found = None
        return AnsweredQuestion(name, answer.text, answer.remembered, found)

    def check_question(self, picture: str, question: str) -> tuple[Picture, str]:
        """Return the picture, and the question without spaces around it.

        Raises:
            ValueError: no picture, or no question.
        """
        return self._picture(picture), _given(question, "question")

    def mark(
        self, answer: str, phrases: Sequence[str] | None = None, *, span: Span | None = None
    ) -> GroundedPhrases:
        """Return the masks of phrases of an answer; without any, of its noun chunks. The LMM does
        not run.

        Args:
            phrases: words of the answer, each for all its mentions.
            span: characters (start, end) of the answer, in place of phrases.

        Raises:
            ValueError: the answer is not stored any more, or a phrase is not in it.
        """
        turn = self._answers[answer]
        wanted: list[str | Span] | None = None if phrases is None else [*_lines(phrases)]
        if span is not None:
            wanted = [span]
        embedding = self._embedding(turn.picture)
        grounded = ground_answer(self.model, embedding, turn.answer, wanted, chunker=self.chunker)
        return self._found(
            turn.picture,
            grounded.masks,
            grounded.features,
            grounded.phrases,
            turn=turn,
            spans=grounded.spans,
        )

    @torch.no_grad()
    def ground(
        self, picture: str, phrases: Sequence[str], *, each_alone: bool = False
    ) -> GroundedPhrases:
        """Return the masks of a visitor's phrases; empty lines are skipped.

        Args:
            each_alone: see `flmm.ground_phrases`.

        Raises:
            ValueError: no picture, no phrase, or too many for the LMM.
        """
        shown, phrases = self._picture(picture), _lines(phrases)
        features = phrase_features(self.model, shown.image, phrases, each_alone=each_alone)
        (masks,) = self.model.ground([features], [self._embedding(shown)])
        return self._found(shown, masks, features, phrases)

    def look_again(self, picture: str, question: str, focus: str = "thought") -> CloserLook:
        """Find what matters for a question ("thought": the LMM names it; "question": its words),
        look closely, answer.

        Raises:
            ValueError: no picture, no question, an unknown focus, or too long for the LMM.
        """
        shown = self._picture(picture)
        question = _given(question, "question")
        if focus not in FOCUSES or focus is None:
            raise ValueError(f"focus={focus!r}; legal values are 'thought', 'question'")
        embedding = self._embedding(shown)
        look = LookOptions(focus=focus)
        seen = visual_answer(self.model, shown.image, question, look=look, embedding=embedding)
        mask = None if seen.mask is None else (seen.mask > 0).cpu().numpy()
        return CloserLook(
            question, seen.thought, seen.answer, mask, seen.box, shown.image.crop(seen.box)
        )

    def masks_json(self, result: str) -> bytes:
        """Return masks as COCO RLE json, as `flmm ground` writes it.

        Raises:
            ValueError: the result is not kept.
        """
        _, record = self._results[result]
        return json.dumps(record, indent=1).encode()

    def drawing(self, result: str) -> bytes:
        """Return the drawn masks as PNG, as `flmm ground` writes it.

        Raises:
            ValueError: the result is not stored any more, or it cannot be drawn.
        """
        picture, record = self._results[result]
        found = record["phrases"]
        masks = np.stack(
            [decode_segmentation(one["segmentation"], *record["size"]) for one in found]
        )
        with tempfile.TemporaryDirectory(prefix="flmm-demo-") as folder:
            path, _ = save_grounding(
                Path(folder) / "masks.png",
                picture.image,
                masks,
                [one["phrase"] for one in found],
                scores=[one["score"] for one in found],
                title=record.get("answer", "").strip(),
            )
            return path.read_bytes()

    def _picture(self, name: str) -> Picture:
        return self._pictures[_given(name, "picture")]

    def _embedding(self, picture: Picture) -> ImageEmbedding:
        if picture.embedding is None:
            (picture.embedding,) = self.model.sam.embed([picture.image])
        return picture.embedding

    def _found(
        self,
        picture: Picture,
        grounding: Grounding,
        features: PhraseFeatures,
        phrases: Sequence[str],
        *,
        turn: Turn | None = None,
        spans: tuple[tuple[int, int], ...] = (),
    ) -> GroundedPhrases:
        kind = self.model.heads.score_kind
        found = ScoredMasks(grounding.refined, grounding.scores, kind)
        masks = found.binary(self.min_score).cpu().numpy()
        about = {} if turn is None else {"question": turn.question, "answer": turn.answer.text}
        scores = found.scores.tolist()
        record = {**about, "score_kind": kind, **masks_as_json(masks, phrases, scores)}
        doubtful = tuple(found.is_doubtful(score) for score in scores)
        result = self._results.add((picture, record))
        attention = mean_attention(features).cpu().numpy()
        return GroundedPhrases(
            result,
            about.get("answer", ""),
            tuple(phrases),
            spans,
            masks,
            attention,
            doubtful,
            record,
        )


def _answer_bytes(turn: Turn) -> int:
    """Return the size of a stored answer: its attention and hidden states."""
    kept = turn.answer.generated
    return kept.maps.nbytes + kept.states.nbytes


def _given(text: str, what: str) -> str:
    wanted = {"picture": "choose a picture first", "question": "type a question first"}
    if not text.strip():
        raise ValueError(f"there is no {what}: {wanted[what]}")
    return text.strip()


def _lines(phrases: Sequence[str]) -> list[str]:
    """Return phrases without empty ones and without spaces around them."""
    stripped = [phrase.strip() for phrase in phrases]
    kept = [phrase for phrase in stripped if phrase]
    if not kept:
        raise ValueError("there is no phrase: type one or more, each on its own line")
    return kept
