"""Conversations: earlier turns in the LMM's chat format, and those that no longer fit."""

import pytest
from flmm.dialogue.answers import ask
from flmm.dialogue.conversation import conversation_prompt, fitting_history, turn_marks
from flmm.text.prompts import STYLES, PromptStyle
from tiny_grounding import tiny_grounded, word_tokenizer
from tiny_lmms import picture

HISTORY = [("the dog", " a big dog "), ("the tree", "a tree")]
# Templates in the manner of LLaVA's, Qwen's and Mistral's folders.
PARTS = (
    "{% for m in messages %}{{ m.role.upper() }}: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SYSTEM = (
    "<|im_start|>system\nYou help.<|im_end|>\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.content is string else m.content[0].text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
    "' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def lmm():
    return tiny_grounded().eval().lmm


@pytest.fixture
def template(lmm, monkeypatch):
    """Sets the chat template and the style of the tiny LLaVA."""

    def choose(template, style):
        tokenizer = word_tokenizer()
        tokenizer.chat_template = template
        monkeypatch.setattr(lmm, "tokenizer", tokenizer)
        monkeypatch.setattr(lmm.family, "style", style)
        return lmm

    return choose


QWEN = PromptStyle(
    "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n{input}<|im_end|>\n"
    "<|im_start|>assistant\n",
    image_token="<image>",
    separator="",
)


@pytest.mark.parametrize(
    ("chat_template", "style", "expected"),
    [
        (
            PARTS,
            STYLES["vicuna"],
            "USER: <image>\nthe dog ASSISTANT: a big dog USER: the tree ASSISTANT: a tree USER: "
            "the car ASSISTANT:",
        ),
        (
            None,
            STYLES["vicuna"],
            "USER: <image>\nthe dog ASSISTANT: a big dog</s>USER: the tree ASSISTANT: a tree</s>"
            "USER: the car ASSISTANT:",
        ),
        (
            SYSTEM,
            QWEN,
            "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n<image>the dog<|im_end|>\n"
            "<|im_start|>assistant\na big dog<|im_end|>\n<|im_start|>user\nthe tree<|im_end|>\n"
            "<|im_start|>assistant\na tree<|im_end|>\n<|im_start|>user\nthe car<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            TEXTS,
            STYLES["mistral"],
            "[INST] <image>\nthe dog [/INST] a big dog</s>[INST] the tree [/INST] a tree</s>"
            "[INST] the car [/INST]",
        ),
        (
            "{{ raise_exception('no such role') }}",  # a template that refuses
            STYLES["gemma"],
            "<start_of_turn>user\n<image>\nthe dog<end_of_turn>\n<start_of_turn>model\na big dog"
            "<end_of_turn>\n<start_of_turn>user\nthe tree<end_of_turn>\n<start_of_turn>model\n"
            "a tree<end_of_turn>\n<start_of_turn>user\nthe car<end_of_turn>\n"
            "<start_of_turn>model\n",
        ),
    ],
)
def test_history_stands_in_the_models_own_format(template, chat_template, style, expected):
    lmm = template(chat_template, style)
    assert conversation_prompt(lmm, HISTORY, "the car") == expected
    assert conversation_prompt(lmm, [], "the car") == style.prompt("the car")


def test_a_question_with_the_image_token_is_refused(lmm):
    for history, question in (([("<image>", "a")], "b"), ([("a", "b")], "<image>")):
        with pytest.raises(ValueError, match="holds the image token"):
            conversation_prompt(lmm, history, question)


def test_marks_of_a_template_that_drops_a_turn_are_not_used():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{{ messages[-1].content }}"
    assert turn_marks(tokenizer, STYLES["vicuna"]).to_question == "</s>USER: "


def test_the_oldest_turns_are_left_out_first(lmm):
    lengths = [
        len(lmm.tokenizer.encode(conversation_prompt(lmm, HISTORY[first:], "the car")))
        for first in (0, 1, 2)
    ]
    for most, kept in ((lengths[0], HISTORY), (lengths[0] - 1, HISTORY[1:]), (lengths[1] - 1, [])):
        assert list(fitting_history(lmm, HISTORY, "the car", most_tokens=most)) == kept


def test_an_answer_says_how_much_it_remembers(lmm, monkeypatch):
    image = picture(40, 56)
    asked = {"max_new_tokens": 4}
    assert ask(lmm, image, "the car", **asked).remembered == 0
    with_history = ask(lmm, image, "the car", history=HISTORY, **asked)
    assert with_history.remembered == 2
    length = len(lmm.tokenizer.encode(conversation_prompt(lmm, HISTORY, "the car")))
    context = length - 1 + 64 + 4  # one token short; the picture has 64
    monkeypatch.setattr(lmm.language_config, "max_position_embeddings", context)
    assert ask(lmm, image, "the car", history=HISTORY, **asked).remembered == 1
    with pytest.raises(ValueError, match="the question is empty"):
        ask(lmm, image, " ")
