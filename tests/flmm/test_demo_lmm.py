"""The demo LMM: its words and folder, the texts it learns from, and that it learns."""

import numpy as np
import pytest
import torch
from flmm.adapters import load_lmm
from flmm.demo.captions import CaptionConfig, CaptionedScenes, caption_accuracy, mirrored, train_captions
from flmm.demo.lmm import build_demo_llava, word_tokenizer
from flmm.demo.model_files import WEIGHTS, load_weights, save_weights, write_demo_model
from flmm.demo.names import names_in, recalled, train_names
from flmm.demo.pretrain import in_memory, pretrain
from flmm.demo.scenes import COLUMNS, CONCEPTS, ROWS, compose_demo_scenes, demo_words


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    scenes = compose_demo_scenes(tmp_path_factory.mktemp("scenes"), "val", count=24, seed=3).read()
    return [in_memory(scenes[i]) for i in range(len(scenes))]


def test_every_word_of_a_scene_is_known(samples):
    tokenizer = word_tokenizer()
    for sample in samples:
        ids = tokenizer.encode(sample.caption, add_special_tokens=False)
        assert tokenizer.decode(ids) == sample.caption
        assert tokenizer.unk_token_id not in ids
    assert set(demo_words()) <= set(tokenizer.get_vocab())


def test_folder_is_read_as_any_lmm(tmp_path):
    torch.manual_seed(1)
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer).eval()
    save_weights(model, tmp_path / "w.safetensors", {"seconds": 1})
    folder, about = write_demo_model(tmp_path / "lmm", weights=tmp_path / "w.safetensors")
    assert about == {"seconds": 1}
    read = load_lmm(folder, dtype="float32")
    for name, value in read.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name].half().float(), rtol=0, atol=0)
    assert read.tokenizer.encode("two bears at top left .") == tokenizer.encode("two bears at top left .")
    assert read.map_channels == read.layers * 4


def test_wrong_or_missing_weights(tmp_path):
    model = build_demo_llava(word_tokenizer())
    with pytest.raises(FileNotFoundError, match="pretrain-demo-lmm"):
        load_weights(model, tmp_path / "none.safetensors")
    save_weights(torch.nn.Linear(2, 2), tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match=r"another demo LMM.*pretrain-demo-lmm"):
        load_weights(model, tmp_path / "other.safetensors")


def test_mirror_image_reverses_the_phrases(samples):
    for sample in samples:
        other = mirrored(sample)
        assert [p.text for p in other.phrases] == [p.text for p in sample.phrases][::-1]
        assert [t for t, i in other.segments if i < 0] == [t for t, i in sample.segments if i < 0]
        assert all(other.phrases[i].text == t for t, i in other.segments if i >= 0)
        assert mirrored(other) == sample


def test_places_follow_the_masks(samples):
    scenes = CaptionedScenes(samples)
    assert torch.equal(scenes.pixels[len(samples)], scenes.pixels[0].flip(-1))
    for number, sample in enumerate(samples):
        masks = sample.load()[1]
        order = list(range(len(masks)))
        for index, mask in enumerate(masks):
            y, x = (axis.mean() * 3 / size for axis, size in zip(np.nonzero(mask), mask.shape))
            (phrase, _), (place, _) = scenes.located(number, order)[2 * index : 2 * index + 2]
            assert phrase == sample.phrases[index].text
            assert place == f"at {ROWS[int(y)]} {COLUMNS[int(x)]} ."
        mirror = scenes.places[number + len(samples)][::-1]
        assert [(row, 2 - column) for row, column in mirror] == scenes.places[number]


@pytest.mark.parametrize("bf16", [False, True])
def test_captions_are_learnt(samples, bf16):
    """In bfloat16 too: weights that autocast keeps from the first step would stop it early."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer)
    config = CaptionConfig(steps=30, batch_size=4, lr=3e-3, warmup_steps=5, narratives=1.0, foreign=0.0, bf16=bf16)
    losses = list(train_captions(model, tokenizer, CaptionedScenes(samples[:1]), config))
    assert np.mean(losses[-5:]) < 0.25 * losses[0]
    assert caption_accuracy(model, tokenizer, samples[:1])["tokens"] > 0.7
    assert not model.training


def test_wrong_options():
    with pytest.raises(ValueError, match="steps=0"):
        CaptionConfig(steps=0)


def test_shipped_weights_describe_scenes_they_never_saw(samples):
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer).eval()
    about = load_weights(model, WEIGHTS)
    assert WEIGHTS.stat().st_size < 3_000_000
    right = caption_accuracy(model, tokenizer, samples)
    assert right["names"] > about["val"]["names"] - 0.2
    assert right["tokens"] > 0.6


def test_tower_learns_the_names(samples):
    torch.manual_seed(0)
    model = build_demo_llava(word_tokenizer())
    scenes = CaptionedScenes(samples[:2])
    truth = names_in(scenes)
    for row, sample in zip(truth, scenes.samples, strict=True):
        told = {name for name, hit in zip(CONCEPTS, row) if hit}
        assert len(told) == len(sample.phrases)
        assert all(any(name in phrase.text for phrase in sample.phrases) for name in told)
    config = CaptionConfig(steps=30, batch_size=4, lr=2e-3, warmup_steps=3)
    losses = [loss for loss, _ in train_names(model, scenes, config)]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert recalled(torch.tensor([[3.0, 2, 1], [0, 5, 1]]), torch.tensor([[1.0, 0, 1], [0, 1, 0]])) == pytest.approx(
        2 / 3
    )


def test_pretraining_writes_weights_that_load(tmp_path):
    names, captions = (CaptionConfig(steps=n, batch_size=2, warmup_steps=1) for n in (1, 2))
    about = pretrain(tmp_path / "w.safetensors", names, captions, scenes=4, held_out=2)
    assert load_weights(build_demo_llava(word_tokenizer()), tmp_path / "w.safetensors") == about
    assert about["captions"]["steps"] == 2
    assert 0 <= about["test"]["names"] <= 1
