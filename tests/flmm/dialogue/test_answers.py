"""Answers of the golden DeepSeek-VL, their phrases and masks; offsets of tokens in a text."""

import pytest
import torch
from flmm.adapters.features import Answer
from flmm.adapters.tokenizer import plain_decoder, prompt_ids
from flmm.dialogue.answers import ask, ground_answer, text_and_offsets
from flmm.grounders.heads import ground_phrases
from flmm.text.original import original_spans
from golden_lmms import cases_about, close_masks, golden_grounded, tokenizer_of
from PIL import Image
from torch.nn import functional as F


@pytest.fixture(scope="module")
def chat(golden):
    """(case, model, image, answer) of the golden conversation."""
    family = next(iter(cases_about("answer")), None)
    if family is None:
        pytest.skip("no case of this set has an answer")
    case = golden("forward", f"flmm/{family}")
    model = golden_grounded(case)
    model.lmm.tokenizer = tokenizer_of(case, "deepseek")
    asked = case.meta["answer"]
    image = Image.open(case.folder.parent / "data" / "images" / asked["file_name"])
    return (
        case,
        model,
        image,
        ask(model.lmm, image, asked["question"], max_new_tokens=asked["max_new_tokens"]),
    )


def test_golden_prompt(chat):
    case, model, _, _ = chat
    asked = case.meta["answer"]
    ids = prompt_ids(model.lmm, model.lmm.family.style.prompt(asked["question"])).tolist()
    image_id = model.lmm.family.image_token_id
    assert [i for i in ids if i != image_id] == [i for i in asked["prompt_ids"] if i != image_id]
    assert ids.index(image_id) == asked["prompt_ids"].index(image_id)


@pytest.mark.device
def test_golden_answer_and_its_features(chat):
    case, model, _, answer = chat
    said = answer.generated
    assert answer.text == case.meta["answer"]["output_text"]
    assert said.ids[: len(said.maps)].tolist() == case.tensor("answer__output_ids").tolist()
    expected = case.tensor("answer__attention_maps").transpose(0, 1)
    torch.testing.assert_close(said.layout.arrange(said.maps), expected, atol=1e-5, rtol=1e-4)
    states = model.sum_states(said.states)
    torch.testing.assert_close(states, case.tensor("answer__hidden_states"), atol=1e-4, rtol=1e-3)
    assert {k for a, b in answer.offsets for k in range(a, b)} == set(range(len(answer.text)))


@pytest.mark.device
def test_golden_grounding_of_an_answer(chat):
    case, model, image, answer = chat
    features = answer.generated.phrases(
        [tuple(span) for span in case.meta["answer"]["positive_ids"]]
    )
    with torch.no_grad():
        (found,) = model.ground([features], [image])
    coarse = F.interpolate(found.coarse[None], size=(image.height, image.width), mode="bilinear")[0]
    for masks, name in ((coarse, "ground__pred_masks"), (found.refined, "ground__sam_pred_masks")):
        expected, step = case.strided(name)
        close_masks(masks[..., ::step, ::step], expected)


def test_golden_words_of_an_answer_are_grounded(chat):
    _, model, image, answer = chat
    last = answer.text.split()[-1]
    found = ground_answer(model, image, answer, [last])
    assert set(found.phrases) == {last}  # a random LMM may repeat a word
    assert {answer.text[slice(*span)] for span in found.spans} == {last}
    assert found.masks.refined.shape == (len(found.phrases), image.height, image.width)
    assert not found.masks.refined.requires_grad
    whole = ground_answer(model, image, answer, original_spans(answer.text, lambda text: []))
    assert whole.phrases == (answer.text.rstrip(),)
    with pytest.raises(ValueError, match="no phrase to ground"):
        ground_answer(model, image, answer, chunker=lambda text: [])
    with pytest.raises(ValueError, match="'a unicorn' is not in the answer"):
        ground_answer(model, image, answer, ["a unicorn"])
    with pytest.raises(ValueError, match="no phrase to ground"):
        ground_answer(model, image, Answer("", (), answer.generated))


def test_golden_phrases_of_ones_own(chat):
    _, model, image, _ = chat
    found = ground_phrases(model, image, ["a big dog", "the tree"])
    assert found.refined.shape == (2, image.height, image.width)
    (first,) = ground_phrases(model, image, ["a big dog"]).coarse
    torch.testing.assert_close(
        found.coarse[0], first, atol=1e-4, rtol=1e-3
    )  # later words do not reach back
    with pytest.raises(ValueError, match="at least one phrase"):
        ground_phrases(model, image, [])


def test_golden_lmm_without_a_tokenizer_says_so(chat, monkeypatch):
    _, model, image, _ = chat
    monkeypatch.setattr(model.lmm, "tokenizer", None)
    with pytest.raises(ValueError, match="pass one to build_lmm"):
        ask(model.lmm, image, "What is it?")


def test_golden_offsets_cover_bytes_and_spaces(golden):
    case = golden("forward", "flmm/llava")
    tokenizer = tokenizer_of(case, "llava")
    for text in ("the dog near a tree.", "naïve café dogs", "日本 a", "x"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        decoded, offsets = text_and_offsets(ids, plain_decoder(tokenizer))
        assert decoded.strip() == text
        assert len(offsets) == len(ids)
        covered = set()
        for start, end in offsets:
            assert start < end
            covered |= set(range(start, end))
        assert covered == set(range(len(decoded)))
        assert list(offsets) == sorted(offsets)
    assert text_and_offsets([], plain_decoder(tokenizer)) == ("", ())
