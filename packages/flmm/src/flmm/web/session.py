"""The functions of the page without HTTP: pictures, questions and phrases in; words, masks and
attention out.

Letters: N phrases, H W pixels of the picture, h w the grid of an attention map.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from clim_data.pixels import decode_segmentation
from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures
from flmm.dialogue.answers import NoPhrasesError, answer_spans, ask
from flmm.dialogue.streaming import OnText
from flmm.dialogue.visual_cot import FOCUSES, LookOptions, visual_answer
from flmm.grounded import GroundedLMM
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.images import PhraseMarks, masks_as_json, save_grounding
from flmm.heads.facts import unknown_phrases
from flmm.pictures.mean_attention import mean_attention
from flmm.refiners.embedding import ImageEmbedding
from flmm.text.phrases import Chunker, Span, noun_chunks
from flmm.web.makers import (
    Choice,
    MaskGrounder,
    MaskMakers,
    masks_of_phrases,
    masks_of_spans,
    refiner_of,
)
from flmm.web.recent import RecentItems
from flmm.web.results import AnsweredQuestion, CloserLook, GroundedPhrases
from flmm.web.upload import Upload, read_upload

# The attention of 512 tokens of a 7B LMM in bfloat16 is 0.6 GB for LLaVA-1.5 and up to 3 GB for
# LLaVA-NeXT.
ANSWER_BYTES_KEPT = 4 << 30
PICTURES_KEPT = 64
RESULTS_KEPT = 256


@dataclass
class Picture:
    """A picture, and its embedding by each refiner that has grounded something in it."""

    upload: Upload
    embeddings: dict[Choice, ImageEmbedding] = field(default_factory=dict)

    @property
    def image(self) -> Image.Image:
        return self.upload.image


@dataclass(frozen=True)
class Turn:
    """A stored answer with its features. picture: its picture."""

    picture: Picture
    question: str
    answer: Answer


class Demo:
    """One model and its recent results. Methods that run the model must not run at the same time.

    The frozen LMM runs once for an answer and SAM's image encoder once for a picture, for any
    number of groundings.

    Args:
        model: of `flmm.load_grounded`, or several ways to masks.
        max_new_tokens: longest answer, as `flmm.ask` takes it.
        min_score: phrases with a lower score are not found.
        chunker: finds the phrases of an answer.
    """

    def __init__(
        self,
        model: GroundedLMM | MaskMakers,
        *,
        max_new_tokens: int | None = None,
        min_score: float = 0.0,
        chunker: Chunker = noun_chunks,
    ):
        self.makers = model if isinstance(model, MaskMakers) else MaskMakers.of_heads(model)
        self.lmm, self.chunker = self.makers.lmm, chunker
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

    @property
    def model(self) -> GroundedLMM | None:
        """The model with trained heads; None where there is none."""
        return self.makers.heads

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
        grounder: str = "",
        outlines: str = "",
    ) -> AnsweredQuestion:
        """Answer a question and ground the phrases of the answer.

        Args:
            history, on_text: see `flmm.ask`.
            grounder, outlines: see `MaskMakers.chosen`.

        Raises:
            ValueError: no picture, no question, too long for the LMM, or it said nothing.
        """
        shown, question = self.check_question(picture, question)
        self.makers.chosen(grounder, outlines)
        answer = ask(
            self.lmm,
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
            found = self.mark(name, grounder=grounder, outlines=outlines)
        except NoPhrasesError:
            found = None
        return AnsweredQuestion(name, answer.text, answer.remembered, found)

    def check_question(self, picture: str, question: str) -> tuple[Picture, str]:
        """Return the picture, and the question without spaces around it.

        Raises:
            ValueError: no picture, or no question.
        """
        return self._picture(picture), _given(question, "question")

    @torch.no_grad()
    def mark(
        self,
        answer: str,
        phrases: Sequence[str] | None = None,
        *,
        span: Span | None = None,
        grounder: str = "",
        outlines: str = "",
    ) -> GroundedPhrases:
        """Return the masks of phrases of an answer; without any, of its noun chunks. The LMM runs
        for the grounder "box" only.

        Args:
            phrases: words of the answer, each for all its mentions.
            span: characters (start, end) of the answer, in place of phrases.
            grounder, outlines: see `MaskMakers.chosen`.

        Raises:
            ValueError: the answer is not stored any more, or a phrase is not in it.
        """
        turn = self._answers[answer]
        wanted: list[str | Span] | None = None if phrases is None else [*_lines(phrases)]
        if span is not None:
            wanted = [span]
        choice, maker = self.makers.chosen(grounder, outlines)
        spans = answer_spans(turn.answer, wanted, chunker=self.chunker)
        embedding = self._embedding(turn.picture, choice, maker)
        found, features = masks_of_spans(maker, turn.picture.image, embedding, turn.answer, spans)
        texts = [turn.answer.text[start:end] for start, end in spans]
        return self._found(turn.picture, found, features, texts, turn=turn, spans=tuple(spans))

    @torch.no_grad()
    def ground(
        self,
        picture: str,
        phrases: Sequence[str],
        *,
        each_alone: bool = False,
        grounder: str = "",
        outlines: str = "",
    ) -> GroundedPhrases:
        """Return the masks of a visitor's phrases; empty lines are skipped.

        Args:
            each_alone: see `flmm.ground_phrases`.
            grounder, outlines: see `MaskMakers.chosen`.

        Raises:
            ValueError: no picture, no phrase, or too many for the LMM.
        """
        shown, phrases = self._picture(picture), _lines(phrases)
        choice, maker = self.makers.chosen(grounder, outlines)
        found, features = masks_of_phrases(
            maker,
            shown.image,
            self._embedding(shown, choice, maker),
            phrases,
            each_alone=each_alone,
        )
        return self._found(shown, found, features, phrases)

    def look_again(self, picture: str, question: str, focus: str = "thought") -> CloserLook:
        """Find what matters for a question ("thought": the LMM names it; "question": its words),
        look closely, answer.

        Raises:
            ValueError: no picture, no question, an unknown focus, too long for the LMM, or no
                trained heads.
        """
        model = self.model
        if model is None:
            raise ValueError(
                "a closer look needs trained heads: start `flmm demo` with --grounder heads and "
                "--checkpoint"
            )
        shown = self._picture(picture)
        question = _given(question, "question")
        if focus not in FOCUSES or focus is None:
            raise ValueError(f"focus={focus!r}; legal values are 'thought', 'question'")
        choice, maker = self.makers.chosen("heads")
        embedding = self._embedding(shown, choice, maker)
        look = LookOptions(focus=focus)
        seen = visual_answer(model, shown.image, question, look=look, embedding=embedding)
        mask = None if seen.mask is None else (seen.mask > 0).cpu().numpy()
        return CloserLook(
            question, seen.thought, seen.answer, mask, seen.box, shown.image.crop(seen.box)
        )

    def masks_json(self, result: str) -> bytes:
        """Return masks as COCO RLE json, as `flmm ground` writes it.

        Raises:
            ValueError: the result is not stored any more.
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
        told = [one["in_picture"] for one in found if "in_picture" in one]
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
                marks=PhraseMarks(told or None),
                title=record.get("answer", "").strip(),
            )
            return path.read_bytes()

    def _picture(self, name: str) -> Picture:
        return self._pictures[_given(name, "picture")]

    def _embedding(self, picture: Picture, choice: Choice, maker: MaskGrounder) -> ImageEmbedding:
        if choice not in picture.embeddings:
            (picture.embeddings[choice],) = refiner_of(maker).embed([picture.image])
        return picture.embeddings[choice]

    def _found(
        self,
        picture: Picture,
        found: ScoredMasks,
        features: PhraseFeatures,
        phrases: Sequence[str],
        *,
        turn: Turn | None = None,
        spans: tuple[tuple[int, int], ...] = (),
    ) -> GroundedPhrases:
        masks = found.binary(self.min_score).cpu().numpy()
        about = {} if turn is None else {"question": turn.question, "answer": turn.answer.text}
        scores = found.scores.tolist()
        plain = masks_as_json(masks, phrases, scores, PhraseMarks.of(found))
        record = {**about, "score_kind": found.kind, **plain}
        heads = self.makers.heads
        knows = None if heads is None else heads.heads.knows
        unknown = () if knows is None else tuple(unknown_phrases(knows, phrases))
        result = self._results.add((picture, record))
        attention = mean_attention(features).cpu().numpy()
        return GroundedPhrases(
            result,
            about.get("answer", ""),
            tuple(phrases),
            spans,
            masks,
            attention,
            unknown,
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
