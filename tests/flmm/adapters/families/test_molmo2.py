"""Molmo 2: its processor's options say which rows of an image have a mark after them."""

import pytest
from tiny_lmms import picture
from todays_lmms import own_processor, todays_lmm


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_single_crop_col_tokens": True},
        {"use_single_crop_col_tokens": None, "image_use_col_tokens": False},
        {"use_single_crop_start_token": False},
    ],
    ids=["released", "all_rows", "no_rows", "one_start"],
)
def test_marks_are_those_of_the_processor(options):
    lmm = todays_lmm("molmo2")
    processor = own_processor("molmo2", lmm.family.processor)
    for name, value in options.items():
        setattr(processor, name, value)
    lmm.family.read_processor(options)
    image = picture(60, 90)
    expected = processor(images=[image], text=["<|image|>"], return_tensors="pt")
    prepared = lmm.family.prepare(image)
    ids = lmm.family.layout(prepared).ids(lmm.family.image_token_id, lmm.tokenizer)
    assert ids.tolist() == expected["input_ids"][0, 1:].tolist()  # after the first token
    kinds = lmm.family.model_inputs([prepared], expected["input_ids"])["mm_token_type_ids"]
    assert kinds.tolist() == expected["mm_token_type_ids"].tolist()
