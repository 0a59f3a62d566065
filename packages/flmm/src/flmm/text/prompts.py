"""The chat format of each family of LMMs: the text around a question, and the place of the image in
it.

Only the user's turn is templated; no system text is added, because the published checkpoints were
trained without one.
"""

from dataclasses import dataclass

DESCRIBE = "Please give me a description of the image."


@dataclass(frozen=True)
class PromptStyle:
    """The chat format of a family.

    template: the user's turn up to where the answer starts, with `{input}`.
    image_token: the text of an image. separator: between it and the question.
    answer_end: text between an answer and the next turn; None: the tokenizer's end token.
    """

    template: str
    image_token: str = "<image>"
    separator: str = "\n"
    answer_end: str | None = None

    def question(self, text: str = DESCRIBE, *, image_tokens: int = 1) -> str:
        """Put the image first, then the text: what the user says, before templating."""
        return self.image_token * image_tokens + self.separator + text

    def prompt(self, text: str = DESCRIBE, *, image_tokens: int = 1) -> str:
        """Return the whole prompt; the answer is written straight after it.

        Args:
            text: question or request.
            image_tokens: how often the image token is repeated (1 where the model or the adapter
                repeats it).

        Raises:
            ValueError: the text itself holds the image token.
        """
        self.check(text)
        return self.template.replace("{input}", self.question(text, image_tokens=image_tokens))

    def check(self, text: str) -> None:
        """Raise ValueError where the text of a user holds the image token."""
        if self.image_token in text:
            raise ValueError(
                f"the text holds the image token {self.image_token!r}: leave it out, it is added"
            )


STYLES: dict[str, PromptStyle] = {
    "vicuna": PromptStyle("USER: {input} ASSISTANT:"),
    "mistral": PromptStyle("[INST] {input} [/INST]"),
    "deepseek": PromptStyle(
        "User: {input}\n\nAssistant:", image_token="<image_placeholder>", separator=""
    ),
    "chatml": PromptStyle(
        "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n", answer_end="<|im_end|>\n"
    ),
    "llama3": PromptStyle(
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        answer_end="<|eot_id|>",
    ),
    "gemma": PromptStyle(
        "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        answer_end="<end_of_turn>\n",
    ),
}


def prompt_style(name: str) -> PromptStyle:
    """Return a style by name; ValueError lists the known ones."""
    if name not in STYLES:
        raise ValueError(
            f"no prompt style {name!r}: choose from {', '.join(STYLES)}, or make a PromptStyle"
        )
    return STYLES[name]
