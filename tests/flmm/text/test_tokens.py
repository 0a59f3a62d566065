"""Token ids and phrase ids: the original data sets' values for every prompt and tokenizer."""

import json
import re

import numpy as np
import pytest
import torch
from clim_data import PanopticNarratives, ReferringExpressions
from flmm.adapters.frames import ImageFrame
from flmm.adapters.preparers import PadToSquare
from flmm.text.prompts import STYLES, prompt_style
from flmm.text.tokens import (
    phrase_token_spans,
    tokenize_expressions,
    tokenize_sample,
    tokenize_segments,
)
from PIL import Image
from transformers import AutoTokenizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


FILE = "data/png.json"  # of the narratives, unless a sidecar names another


@pytest.fixture(scope="module")
def golden_folder(golden):
    return golden("demo/text_logic", "flmm").folder


@pytest.fixture(scope="module")
def tokenizer_of(golden_folder):
    """`tokenizer_of(sidecar)`: its tokenizer, with the image token added where the sidecar says
    so."""

    def load(meta):
        tokenizer = AutoTokenizer.from_pretrained(golden_folder / "data" / meta["tokenizer"])
        if meta["add_image_token"]:
            tokenizer.add_special_tokens(
                {"additional_special_tokens": [meta.get("image_token", "<image>")]}
            )
        return tokenizer

    return load


def cases(folder, kind):
    for path in sorted((folder / "datasets").glob(f"{kind}*.json")):
        yield json.loads(path.read_text()), np.load(path.with_suffix(".npz"))


def prompt_of(meta):
    """The sidecar's prompt, made by our styles."""
    (style,) = {s for s in STYLES.values() if s.template == meta["instruction_template"]}
    asked = re.sub(r"  \(.*\)$", "", meta["prompt"])  # a remark of the sidecar
    images = asked.count(style.image_token)
    text = asked.removeprefix(style.image_token * images + style.separator)
    prompt = style.prompt(text, image_tokens=images)
    assert prompt == style.template.format(input=asked)
    return prompt


def check(tokenized, meta, arrays, sample, tokenizer):
    ids = tokenized.input_ids.clone()
    if meta["add_image_token"]:  # these two families mark the image by -200
        ids[ids == tokenizer.convert_tokens_to_ids("<image>")] = -200
    assert ids.tolist() == arrays[f"{sample}__input_ids"].tolist()
    assert tokenized.phrase_ids.tolist() == arrays[f"{sample}__mask_ids"].tolist()
    labels = torch.where(tokenized.labels < 0, tokenized.labels, ids)
    assert labels.tolist() == arrays[f"{sample}__labels"].tolist()


def png_place(sample, record):
    """Place of a sample's narrative in the file."""
    return record["png_index"] if "png_index" in record else int(sample[1:])


def numbered(segments):
    """(utterance, phrase index) of the segments of a narrative file."""
    count, numbered = 0, []
    for segment in segments:
        numbered.append((segment["utterance"], count if segment["segment_ids"] else -1))
        count += bool(segment["segment_ids"])
    return numbered


def test_golden_narratives_for_every_tokenizer_and_prompt(golden_folder, tokenizer_of):
    count = 0
    for meta, arrays in cases(golden_folder, "png"):
        narratives = json.loads((golden_folder / meta.get("png_json", FILE).split()[0]).read_text())
        tokenizer = tokenizer_of(meta)
        for sample, record in meta["samples"].items():
            index = png_place(sample, record)
            text = tokenize_segments(
                tokenizer, prompt_of(meta), numbered(narratives[index]["segments"])
            )
            check(text, meta, arrays, sample, tokenizer)
            assert text.phrases == len(record["mask_infos"])
            count += 1
    assert count


def test_golden_expressions_for_every_tokenizer_and_prompt(golden_folder, tokenizer_of):
    count = 0
    for meta, arrays in cases(golden_folder, "refcoco"):
        tokenizer = tokenizer_of(meta)
        for sample, record in meta["samples"].items():
            text = tokenize_expressions(tokenizer, prompt_of(meta), record["texts"])
            check(text, meta, arrays, sample, tokenizer)
            count += 1
    assert count


def test_golden_texts_from_the_readers(golden_folder, tokenizer_of):
    """Files to ids in one go: the readers of clim-data, then the tokenizer."""
    data = golden_folder / "data"
    narratives = PanopticNarratives(
        data / "images", data / "png.json", data / "panoptic.json", data / "panoptic"
    )
    by_place = {
        int(narratives[i].key.rpartition("-")[2]): narratives[i] for i in range(len(narratives))
    }
    for meta, arrays in cases(golden_folder, "png_llava"):
        tokenizer = tokenizer_of(meta)
        for sample, record in meta["samples"].items():
            given = by_place[png_place(sample, record)]
            check(
                tokenize_sample(tokenizer, prompt_of(meta), given), meta, arrays, sample, tokenizer
            )
    refs = next((data / "refcoco").glob("refs(*).p")), data / "refcoco" / "instances.json"
    options = {"sentences": "first", "together": True, "bad_masks": "empty"}
    count = 0
    for meta, arrays in cases(golden_folder, "refcoco_llava_select_first"):
        tokenizer = tokenizer_of(meta)
        for sample, record in meta["samples"].items():
            if "_split" in sample:
                continue
            split = sample.rstrip("0123456789")
            expressions = ReferringExpressions(data / "images", *refs, split=split, **options)
            (given,) = (
                e
                for e in map(expressions.__getitem__, range(len(expressions)))
                if e.image.name == record["img"]
            )
            check(
                tokenize_sample(tokenizer, prompt_of(meta), given), meta, arrays, sample, tokenizer
            )
            count += 1
    assert count


def test_golden_masks_follow_the_image(golden_folder):
    for kind in ("png", "refcoco"):
        for meta, arrays in cases(golden_folder, kind):
            for sample, record in meta["samples"].items():
                if f"{sample}__gt_masks" not in arrays:
                    continue
                gt = torch.from_numpy(arrays[f"{sample}__gt_masks"])
                shape, padded = (
                    (m["height"], m["width"])
                    for m in (record["meta_data"][k] for k in ("image_shape", "padded_shape"))
                )
                frame = ImageFrame.centred(tuple(gt.shape[-2:]), shape, padded)
                assert list(frame.image_size) == arrays[f"{sample}__image_sizes"].tolist()
                if f"{sample}__pixel_values" in arrays:  # of the family that gets a padded picture
                    name = record["file_name"] or record["img"]
                    picture, _ = PadToSquare(None, CLIP_MEAN, CLIP_STD).padded(
                        Image.open(golden_folder / "data" / "images" / name)
                    )
                    assert np.array_equal(np.asarray(picture), arrays[f"{sample}__pixel_values"])
                masks = frame.resize_masks(gt)
                assert torch.equal(masks, torch.from_numpy(arrays[f"{sample}__masks"]))
                canvas = torch.zeros(len(gt), *padded, dtype=gt.dtype)
                canvas[:, frame.top : frame.top + shape[0], frame.left : frame.left + shape[1]] = (
                    masks
                )
                assert torch.equal(canvas, torch.from_numpy(arrays[f"{sample}__padded_masks"]))


def test_golden_token_spans_of_phrases(golden):
    for case in golden("demo/text_logic", "flmm").meta["phrases"]:
        spans = phrase_token_spans(case["token_offsets"], case["char_spans"], straddling="drop")
        assert [list(span) for span in spans] == case["token_spans"]


def test_a_last_token_with_more_than_the_phrase_is_kept():
    offsets = [(0, 1), (1, 6), (6, 12), (12, 14)]  # "A tree. stands ..."
    assert phrase_token_spans(offsets, [(0, 6), (2, 5)]) == [(0, 2), (1, 2)]
    assert phrase_token_spans(offsets, [(0, 5)]) == [(0, 2)]
    assert phrase_token_spans(offsets, [(0, 5)], straddling="drop") == [(0, 1)]
    with pytest.raises(ValueError, match="not in the text"):
        phrase_token_spans(offsets, [(3, 20)])
    with pytest.raises(ValueError, match="not in the text"):
        phrase_token_spans(offsets, [(3, 3)])


class Words:
    """A tokenizer of single characters that adds nothing of its own but one BOS."""

    def encode(self, text, *, add_special_tokens=True):
        return [1] * add_special_tokens + [ord(c) for c in text]


def test_one_image_token_becomes_many():
    text = tokenize_segments(Words(), "<?", [("ab", 0), ("c", -1), ("d", 1)])
    assert text.input_ids.tolist() == [1, *map(ord, "<?abcd")]
    assert text.phrase_ids.tolist() == [-1, -1, -1, 0, 0, -1, 1]
    image = torch.tensor([*map(ord, "<|<")])  # a mark between two image tokens
    long = text.expand(ord("<"), [image])
    assert long.input_ids.tolist() == [1, *map(ord, "<|<?abcd")]
    assert long.phrase_ids.tolist() == [-1] * 5 + [0, 0, -1, 1]
    assert long.labels.tolist() == [-100] * 5 + [*map(ord, "abcd")]
    assert text.expand(ord("!"), []).input_ids.tolist() == text.input_ids.tolist()
    with pytest.raises(ValueError, match="1 image tokens for 2 images"):
        text.expand(ord("<"), [image, image])
    with pytest.raises(ValueError, match="the answer holds the image token"):
        text.expand(ord("c"), [image])


def test_spaces_are_the_callers_choice_and_a_prompt_begins_as_the_tokenizer_says():
    assert tokenize_segments(Words(), [7, 8], [("a", 0)]).input_ids.tolist() == [7, 8, ord("a")]
    spaced = tokenize_segments(Words(), "x", [("a", 0)], spaced=True)
    assert spaced.input_ids.tolist() == [1, *map(ord, "x a")]
    text = tokenize_expressions(Words(), "", ["a", "b"], spaced=True)
    assert text.input_ids.tolist() == [1, *map(ord, " a. b.")]
    assert text.phrase_ids.tolist() == [-1, 0, 0, -1, 1, 1, -1]
    assert tokenize_segments(Words(), "x", []).phrases == 0


def test_wrong_phrases_are_refused():
    with pytest.raises(ValueError, match="number the phrases as they appear"):
        tokenize_segments(Words(), "", [("a", 1), ("b", 0)])
    with pytest.raises(ValueError, match="have no token"):
        tokenize_segments(Words(), "", [("a", 0), ("", 1)])
    with pytest.raises(ValueError, match="choose from vicuna"):
        prompt_style("bard")
    with pytest.raises(ValueError, match="leave it out"):
        prompt_style("vicuna").prompt("what is in <image>?")
