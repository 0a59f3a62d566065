"""Places in answers of LMMs: whole, several, cut off, in any order."""

import pytest
from flmm.text.boxes import (
    ANY,
    GEMMA,
    GLM,
    INTERNVL,
    LLAVA,
    MOLMO,
    PALIGEMMA,
    QWEN,
    QWEN_PIXELS,
    BoxFormat,
    points,
)

# Format, an answer, and its places (left, top, right, bottom) in the format's own numbers.
ANSWERS = {
    "qwen": (
        QWEN,
        '```json\n[\n\t{"bbox_2d": [12, 34, 560, 780], "label": "a red car"}\n]\n```<|im_end|>',
        [(12, 34, 560, 780)],
    ),
    "qwen, several": (
        QWEN_PIXELS,
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a"},\n{"bbox_2d": [5, 6, 7, 8], "label": "b"}]',
        [(1, 2, 3, 4), (5, 6, 7, 8)],
    ),
    "qwen, cut off in the second box": (
        QWEN,
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8',
        [(1, 2, 3, 4)],
    ),
    "qwen, cut off in the first box": (QWEN, '```json\n[{"bbox_2d": [105, 200, 350, 4', []),
    "qwen, swapped corners": (QWEN, '{"bbox_2d": [560, 780, 12, 34]}', [(12, 34, 560, 780)]),
    "qwen, nothing": (QWEN, "```json\n[]\n```", []),
    "internvl": (
        INTERNVL,
        "<ref>a red car</ref><box>[[12, 34, 560, 780]]</box><|im_end|>",
        [(12, 34, 560, 780)],
    ),
    "glm": (
        GLM,
        "<think>The cat, maybe [[1,2,3,4]]? No.</think><answer>It is at "
        "<|begin_of_box|>[[12,34,560,780]]<|end_of_box|>.</answer>",
        [(12, 34, 560, 780)],
    ),
    "glm, cut off in its thought": (GLM, "<think>The cat, maybe [[1,2,3,4]]? No, I", []),
    "llava": (LLAVA, "[0.12, 0.34, 0.56, 0.78]</s>", [(0.12, 0.34, 0.56, 0.78)]),
    "llava, words": (LLAVA, "The car is on the left, in [1, 2].", []),
    "paligemma": (
        PALIGEMMA,
        "<loc0034><loc0012><loc0780><loc0560> a red car ; <loc0001><loc0002><loc0003><loc0004> it",
        [(12, 34, 560, 780), (2, 1, 4, 3)],
    ),
    "paligemma, cut off": (PALIGEMMA, "<loc0034><loc0012><loc0780><loc05", []),
    "gemma": (
        GEMMA,
        '```json\n[{"box_2d": [34, 12, 780, 560], "label": "a red car"}]\n```<end_of_turn>',
        [(12, 34, 560, 780)],
    ),
    "molmo": (
        MOLMO,
        '<point x="52.5" y="43.9" alt="a car">a car</point>',
        [(525, 439, 525, 439)],
    ),
    "molmo, several": (
        MOLMO,
        '<points x1="10" y1="20.5" x2="30" y2="40" alt="cars">cars</points>',
        [(100, 205, 100, 205), (300, 400, 300, 400)],
    ),
    "molmo 2": (
        MOLMO,
        'Counting the <points coords="1 1 073 160 2 173 600">cars</points> shows 2.',
        [(73, 160, 73, 160), (173, 600, 173, 600)],
    ),
    "molmo 2, cut off": (MOLMO, '<points coords="1 1 073 160 2 173 60', [(73, 160, 73, 160)]),
    "molmo 2, cut off in the first point": (MOLMO, '<points coords="1 1 073 16', []),
    "refusal": (ANY, "I'm sorry, I cannot see a red car.", []),
    "two corners": (
        ANY,
        "<|box_start|>(12,34),(560,780)<|box_end|> and [[1, 2], [3, 4]]",
        [(12, 34, 560, 780), (1, 2, 3, 4)],
    ),
    "two corners, cut off": (ANY, "<box>(12,34),(560,78", []),
    "pair of round brackets": (ANY, "It is in (12, 34, 560.5, 780).", [(12, 34, 560.5, 780)]),
}


@pytest.mark.parametrize(("style", "answer", "places"), ANSWERS.values(), ids=ANSWERS)
def test_the_places_of_an_answer(style, answer, places):
    found = style.places(answer)
    assert len(found) == len(places)
    for place, wanted in zip(found, places):
        assert place == pytest.approx(wanted)


@pytest.mark.parametrize("style", [QWEN, INTERNVL, GLM, LLAVA, PALIGEMMA, GEMMA, MOLMO, ANY])
def test_no_beginning_of_an_answer_has_a_place_that_the_whole_one_lacks(style):
    for _, answer, _ in ANSWERS.values():
        whole = style.places(answer)
        for end in range(len(answer)):
            if "<think>" not in answer:
                assert style.places(answer[:end]) == whole[: len(style.places(answer[:end]))]


def test_numbers_of_points_that_make_no_sense_are_no_points():
    assert points('<points coords="1 x 073 160">') == []
    assert points('<points coords="">') == []
    assert points('<points coords="523 439">') == [(523, 439, 523, 439)]


def test_small_numbers_of_internvl_are_fractions():
    assert INTERNVL.scale_of((0.1, 0.2, 0.5, 0.6)) == 1
    assert INTERNVL.scale_of((1, 2, 3, 4)) == 1000
    assert QWEN.scale_of((0.1, 0.2, 0.5, 0.6)) == 1000


def test_a_question_holds_the_phrase():
    assert GEMMA.ask("a {red} car").startswith("Detect a {red} car. Answer with JSON, one {")
    with pytest.raises(ValueError, match=r"must hold \{phrase\}"):
        BoxFormat("Where is it?")
    with pytest.raises(ValueError, match="scale=0"):
        BoxFormat("{phrase}", scale=0)
