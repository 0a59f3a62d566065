"""A conversation about an image: earlier questions and answers in the LMM's own chat format."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import tokenizer_of
from flmm.text.prompts import PromptStyle
from flmm.text.tokens import special_tokens_in

# Placeholders for questions and answers, to read a chat template.
_MARKS = ("Qfirst", "Afirst", "Qsecond")


class Exchange(NamedTuple):
    """A question about an image, and the LMM's answer."""

    question: str
    answer: str


class TurnMarks(NamedTuple):
    """The text between the parts of a conversation.

    to_answer: between a question and its answer. to_question: between an answer and the next
    question.
    """

    to_answer: str
    to_question: str


def conversation_prompt(lmm: FrozenLMM, history: Sequence[tuple[str, str]], question: str) -> str:
    """Write the prompt of a question after earlier ones; the first of all comes with the image.

    The text between the turns comes from the chat template of the LMM's tokenizer, or else from the
    family's own format. Without a history the prompt is the one that the heads were trained with.

    Args:
        history: (question, answer) of earlier turns.

    Raises:
        ValueError: a question holds the image token, or one that begins or ends texts.
    """
    style = lmm.family.style
    asked = [*(exchange[0] for exchange in history), question]
    for text in asked:
        style.check(text)
        if special := special_tokens_in(tokenizer_of(lmm), text):
            raise ValueError(f"the question holds the LMM's own token {special[0]!r}: leave it out")
    if not history:
        return style.prompt(question)

    head, _, opening = style.template.partition("{input}")
    marks = turn_marks(tokenizer_of(lmm), style)
    prompt = head + style.question(asked[0])
    for (_, answer), following in zip(history, asked[1:], strict=True):
        prompt += marks.to_answer + answer.strip() + marks.to_question + following
    return prompt + opening


def turn_marks(tokenizer: Any, style: PromptStyle) -> TurnMarks:
    """Find the text between the turns: of the tokenizer's chat template, or else of the style."""
    marks = None
    if getattr(tokenizer, "chat_template", None):
        for in_parts in (True, False):  # templates of LMMs want parts, those of LLMs plain texts
            marks = marks or _marks_of_template(tokenizer, in_parts=in_parts)
    return marks or _marks_of_style(style, getattr(tokenizer, "eos_token", None) or "")


def _marks_of_template(tokenizer: Any, *, in_parts: bool) -> TurnMarks | None:
    """Read the marks off a rendered conversation; None where the template cannot render it."""
    messages = []
    for role, text in zip(("user", "assistant", "user"), _MARKS, strict=True):
        content = [{"type": "text", "text": text}] if in_parts else text
        messages.append({"role": role, "content": content})
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except Exception:  # a template is a program, and may raise nearly anything
        return None

    first, answer, second = _MARKS
    if not isinstance(rendered, str) or any(rendered.count(mark) != 1 for mark in _MARKS):
        return None
    _, _, rest = rendered.partition(first)
    to_answer, _, rest = rest.partition(answer)
    to_question, found, _ = rest.partition(second)
    return TurnMarks(to_answer, to_question) if found else None


def _marks_of_style(style: PromptStyle, end_token: str) -> TurnMarks:
    head, _, opening = style.template.partition("{input}")
    # "USER: {input} ASSISTANT:" wants a space before the answer, formats with line ends do not.
    gap = "" if opening.endswith(("\n", " ")) else " "
    end = end_token if style.answer_end is None else style.answer_end
    return TurnMarks(opening + gap, end + head)


def fitting_history(
    lmm: FrozenLMM, history: Sequence[tuple[str, str]], question: str, *, most_tokens: int
) -> Sequence[tuple[str, str]]:
    """Return the latest turns whose prompt has at most `most_tokens` tokens."""
    encode = tokenizer_of(lmm).encode
    for first in range(len(history)):
        prompt = conversation_prompt(lmm, history[first:], question)
        if len(encode(f"{lmm.family.system}{prompt}")) <= most_tokens:
            return history[first:]
    return []
