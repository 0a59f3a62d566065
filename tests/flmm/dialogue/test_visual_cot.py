"""Visual chain of thought on the golden DeepSeek-VL, in all its variants."""

import pytest
import torch
from flmm.dialogue.visual_cot import LookOptions, mask_box, visual_answer
from golden_lmms import cases_about, close_masks, golden_grounded, tokenizer_of
from PIL import Image

FOCUS = {"v1": "thought", "v2": "question", "v3": None}


@pytest.fixture(scope="module")
def seeing(golden):
    family = next(iter(cases_about("visual_cot")), None)
    if family is None:
        pytest.skip("no case of this set looks closely")
    case = golden("forward", f"flmm/{family}")
    model = golden_grounded(case)
    model.lmm.tokenizer = tokenizer_of(case, "deepseek")
    image = Image.open(case.folder.parent / "data" / "images" / case.meta["answer"]["file_name"])
    return case, model, image


def test_golden_answers_masks_and_boxes(seeing):
    case, model, image = seeing
    asked = case.meta["visual_cot"]
    for name, expected in asked["results"].items():
        variant, _, sam = name.partition("_")
        found = visual_answer(
            model,
            image,
            asked["question"],
            look=LookOptions(
                focus=FOCUS[variant],
                refine=sam != "sam0",
                suffix=asked["additional_prompt"],
                box_scale=asked["box_scale"],
                max_thought_tokens=asked["max_thought_tokens"],
                max_new_tokens=asked["max_new_tokens"],
            ),
        )
        assert (found.thought, found.answer) == (expected["thought"], expected["answer"]), name
        assert list(found.box) == expected["box"], name
        if found.mask is None:
            assert variant == "v3"
        else:
            mask, step = case.strided(f"cot_{name}__mask")
            close_masks(found.mask[::step, ::step], mask)


@pytest.mark.parametrize("family", cases_about("mask2box"))
def test_golden_boxes_of_masks(golden, family):
    for case in golden("forward", f"flmm/{family}").meta["mask2box"]:
        mask = torch.zeros(case["h"], case["w"], dtype=torch.bool)
        if case["region_y0x0y1x1"] is not None:
            y0, x0, y1, x1 = case["region_y0x0y1x1"]
            mask[y0:y1, x0:x1] = True
        assert list(mask_box(mask, scale=case["scale"])) == case["box"]


def test_golden_thought_ends_with_a_full_stop(seeing):
    _, model, image = seeing
    lmm = model.lmm
    ids = torch.tensor(lmm.tokenizer.encode(lmm.family.style.prompt("What?")))
    prepared = lmm.family.prepare(image)
    free = lmm.generate([prepared], ids, max_new_tokens=5).ids
    stopped = lmm.generate([prepared], ids, max_new_tokens=5, stop=lambda said: len(said) == 2).ids
    assert stopped.tolist() == free[:2].tolist()


def test_options_out_of_range_are_refused():
    for wrong, message in (
        ({"focus": "box"}, "'thought', 'question', None"),
        ({"box_scale": 0}, "pass a positive factor"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: pass 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            LookOptions(**wrong)
