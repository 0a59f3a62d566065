"""Answers with boxes: of a batch, and on the pixels of the image, for every family."""

import pytest
import torch
from flmm.adapters.boxes import answered_places, box_format
from flmm.text.boxes import ANY, BoxFormat
from tiny_lmms import FAMILIES, IMAGE_ID, picture, tiny_lmm
from todays_lmms import TODAY, todays_lmm

NAMES = [*FAMILIES, *TODAY]
SIZES = {"wide": (60, 90), "tall": (100, 40)}  # (height, width)
# The families whose numbers are of the padded square.
SQUARE = (
    "llava",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "hpt",
    "hpt15",
    "mgm",
    "mgm_gemma",
    "mgm_hd",
)


def lmm_of(name):
    return todays_lmm(name) if name in TODAY else tiny_lmm(name)


def written(name: str, lmm, box, size) -> str:
    """Write a box of the image, in pixels, as an LMM of the family does."""
    height, width = size
    x0, y0, x1, y1 = box
    if name in SQUARE:  # the image lies in the middle
        side = max(size)
        left, top = (side - width) / 2, (side - height) / 2
        x0, y0, x1, y1 = x0 + left, y0 + top, x1 + left, y1 + top
        height = width = side
    parts = [x0 / width, y0 / height, x1 / width, y1 / height]
    if name == "qwen2_5_vl":
        rows, columns = lmm.family.prepare(picture(*size)).inputs["image_grid_thw"].tolist()[1:]
        pixels = [7 * columns, 7 * rows] * 2
        return '[{"bbox_2d": %s}]' % [part * edge for part, edge in zip(parts, pixels)]
    thousandths = [1000 * part for part in parts]
    if name == "molmo2":
        middle = [(thousandths[0] + thousandths[2]) / 2, (thousandths[1] + thousandths[3]) / 2]
        return f'<points coords="1 1 {middle[0]} {middle[1]}">it</points>'
    if name == "paligemma":
        return "".join(f"<loc{round(1024 * parts[i]):04}>" for i in (1, 0, 3, 2))
    if name.startswith("gemma"):
        return str([thousandths[i] for i in (1, 0, 3, 2)])
    if name.startswith(("llava", "mgm")):
        return str(parts)
    return str(thousandths)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_box_in_the_numbers_of_the_family_comes_back_in_pixels(name, size):
    lmm = lmm_of(name)
    height, width = size
    box = (0.25 * width, 0.5 * height, 0.5 * width, 0.625 * height)
    answer = written(name, lmm, box, size)
    (found,) = answered_places(lmm.family, lmm.family.prepare(picture(*size)), answer)
    if box_format(lmm.family).pointing:
        box = (0.375 * width, 0.5625 * height) * 2
    # A square has whole pixels around the content, which moves it by at most half a pixel.
    assert found == pytest.approx(box, abs=0.02 * max(size))


def test_boxes_are_cut_to_the_image_and_those_outside_are_left_out():
    family = todays_lmm("qwen3_vl").family
    prepared = family.prepare(picture(60, 90))
    answer = "[-100, 500, 400, 1200] [1100, 0, 1200, 10] [300, 300, 300, 400] [0, 0, 1000, 1000]"
    found = answered_places(family, prepared, answer)
    assert found == [(0, 30, 36, 60), (0, 0, 90, 60)]


def test_a_family_that_does_not_say_is_asked_in_plain_words():
    lmm = tiny_lmm("hpt")
    assert box_format(lmm.family) is ANY
    assert not ANY.trained


def test_a_family_that_counts_in_pixels_says_of_what():
    family = tiny_lmm("llava").family
    family.boxes = BoxFormat("{phrase}", scale=None)
    with pytest.raises(ValueError, match="needs `seen_size`"):
        answered_places(family, family.prepare(picture(60, 90)), "[1, 2, 3, 4]")


@pytest.mark.parametrize("name", NAMES)
def test_answers_of_a_batch_are_those_of_each_alone(name):
    lmm = lmm_of(name)
    heads = [part for key, part in lmm.model.named_modules() if key.endswith("lm_head")]
    with torch.no_grad():  # so that texts get different answers
        weight = heads[0].weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    sizes = [(60, 90), (60, 90), (100, 40)]
    images = [lmm.family.prepare(picture(*size, seed=i)) for i, size in enumerate(sizes)]
    words = torch.Generator().manual_seed(0)
    prompts = []
    for count in (3, 9, 5):
        text = torch.randint(5, 40, (count,), generator=words)
        prompts.append(torch.cat([torch.tensor([1, IMAGE_ID]), text]))

    together = lmm.answer_all(images, prompts, max_new_tokens=6)
    alone = [lmm.generate([i], p, max_new_tokens=6).ids for i, p in zip(images, prompts)]
    assert [found.tolist() for found in together] == [
        one.tolist()[: len(found)] for one, found in zip(alone, together)
    ]
    assert len({tuple(found.tolist()) for found in together}) > 1
    ends = lmm.model.generation_config.eos_token_id
    for one, found in zip(alone, together):  # what is missing is the end
        assert len(one) == len(found) or (len(one) == len(found) + 1 and one[-1] == ends)


def test_each_answer_of_a_batch_ends_by_itself():
    lmm = tiny_lmm("llava")
    image = lmm.family.prepare(picture(60, 90))
    prompts = [torch.tensor([1, IMAGE_ID, 7]), torch.tensor([1, IMAGE_ID, 9, 8])]
    whole = lmm.answer_all([image] * 2, prompts, max_new_tokens=6)
    lengths = iter([1, 1, 2, 2, 3, 3])
    found = lmm.answer_all(
        [image] * 2, prompts, max_new_tokens=6, stop=lambda ids: len(ids) == next(lengths) == 2
    )
    assert [ids.tolist() for ids in found] == [ids[:2].tolist() for ids in whole]
    assert lmm.context is not None
    long = torch.cat([prompts[0], torch.full((lmm.context,), 7)])
    with pytest.raises(ValueError, match="do not fit the context"):
        lmm.answer_all([image], [long], max_new_tokens=6)
