"""The demo LMM: its words and folder, the texts it learns from, and that it learns."""

import itertools

import numpy as np
import pytest
import torch
from clim_data.drawings import load_emoji
from flmm.adapters import load_lmm
from flmm.demo.lmm import build_demo_llava, word_tokenizer
from flmm.demo.model_files import WEIGHTS, load_weights, save_weights, write_demo_model
from flmm.demo.scenes import (
    COLUMNS,
    CONCEPTS,
    IMAGE_PX,
    OBJECT_PX,
    ROWS,
    compose_demo_scenes,
    demo_words,
)
from flmm.experiments.captions import (
    CaptionConfig,
    caption_accuracy,
    optimizers_of,
    scene_segments,
    train_captions,
)
from flmm.experiments.listed import ListedThings
from flmm.experiments.names import name_recall, names_in, train_names
from flmm.experiments.painting import PaintedScene, ScenePainter, layout, vary_drawing
from flmm.experiments.pretrain import in_memory, pretrain


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    scenes = compose_demo_scenes(tmp_path_factory.mktemp("scenes"), "val", count=24, seed=3).read()
    return [in_memory(scenes[i]) for i in range(len(scenes))]


@pytest.fixture(scope="module")
def painter():
    return ScenePainter(variants=1, grounds=3)


class Still:
    """A painter of one scene."""

    def __init__(self, scene):
        self.scene = scene

    def paint(self, rng, **kinds):
        return self.scene


def test_listed_things_keep_their_masks(tmp_path):
    scenes = compose_demo_scenes(tmp_path, "val", count=6, seed=3).read()
    listed = ListedThings(scenes, seed=1)
    orders = set()
    for number in range(len(scenes)):
        whole = scenes[number]
        masks = dict(zip((phrase.text for phrase in whole.phrases), whole.load()[1], strict=True))
        for epoch in range(4):
            sample = listed.at(number, epoch=epoch)
            texts = [phrase.text for phrase in sample.phrases]
            assert 1 <= len(set(texts)) == len(texts) <= len(masks)
            assert sample.segments == tuple((text, index) for index, text in enumerate(texts))
            assert sample.kind == "expressions"
            assert all(
                np.array_equal(mask, masks[text])
                for text, mask in zip(texts, sample.load()[1], strict=True)
            )
            assert listed.at(number, epoch=epoch) == sample
            orders.add((number, *texts))
    assert len(orders) > 2 * len(scenes)
    assert listed.stamp() != ListedThings(scenes, seed=2).stamp()


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
    assert read.tokenizer.encode("two bears at top left .") == tokenizer.encode(
        "two bears at top left ."
    )
    assert read.map_channels == read.layers * 4


def test_wrong_or_missing_weights(tmp_path):
    model = build_demo_llava(word_tokenizer())
    with pytest.raises(FileNotFoundError, match="pretrain-demo-lmm"):
        load_weights(model, tmp_path / "none.safetensors")
    save_weights(torch.nn.Linear(2, 2), tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match=r"another demo LMM.*pretrain-demo-lmm"):
        load_weights(model, tmp_path / "other.safetensors")


def test_painted_scenes_are_told_from_left_to_right(painter):
    rng = np.random.default_rng(0)
    scenes = [painter.paint(rng) for _ in range(40)]
    for scene in scenes:
        assert scene.pixels.shape == (IMAGE_PX, IMAGE_PX, 3)
        phrases = [text for text, phrase in scene.segments if phrase >= 0]
        assert [phrase for _, phrase in scene.segments if phrase >= 0] == list(range(len(phrases)))
        assert [len(of) for of in scene.places] == [
            2 if text.startswith("two ") else 1 for text in phrases
        ]
        columns = [np.mean([column for _, column in of]) for of in scene.places]
        assert all(
            b > a - 1 for a, b in itertools.pairwise(columns)
        )  # thirds of neighbours in order, pairs by their mean
        assert all(of == tuple(sorted(of, key=lambda place: place[1])) for of in scene.places)
    assert {len(scene.places) for scene in scenes} == {1, 2, 3}
    again = painter.paint(np.random.default_rng(0))
    assert np.array_equal(again.pixels, scenes[0].pixels)
    assert again.segments == scenes[0].segments


def test_places_follow_the_things(painter):
    """A thing of a strong colour on a plain ground, found by its pixels."""
    still = ScenePainter(variants=1, grounds=1)
    still.grounds[:] = 0
    square = np.full((20, 20, 4), 255, np.uint8)
    still.cutouts = {name: [square] for name in CONCEPTS}
    rng = np.random.default_rng(1)
    for _ in range(20):
        scene = still.paint(rng, most=1, pairs=0.0)
        y, x = (int(3 * axis.mean() / IMAGE_PX) for axis in np.nonzero(scene.pixels[..., 0] > 200))
        assert scene.places == (((y, x),),)


def test_layout_keeps_kinds_apart():
    rng = np.random.default_rng(0)
    sizes, names = [(24, 20), (22, 30), (20, 20)], ["a", "b", "a"]
    gaps, shared = [], []
    for _ in range(20):
        corners = layout(rng, sizes, names, IMAGE_PX)
        assert (corners >= 0).all()
        assert (corners + sizes <= IMAGE_PX).all()
        middle = corners[:, 1] + np.array(sizes)[:, 1] / 2
        gaps.append(abs(middle[[0, 2]].mean() - middle[1]))
        low, high = (
            np.maximum(corners[0], corners[1]),
            np.minimum(corners[0] + sizes[0], corners[1] + sizes[1]),
        )
        shared.append((high - low).clip(min=0).prod())
    assert np.mean(np.array(gaps) >= 8) > 0.8
    assert np.mean(shared) < 40  # of some 500 pixels


def test_cutouts_vary():
    drawing = load_emoji().image("noto", "frog")
    rng = np.random.default_rng(0)
    drawn = [vary_drawing(drawing, rng) for _ in range(8)]
    assert len({cutout.shape for cutout in drawn}) > 1
    for cutout in drawn:
        assert OBJECT_PX[0] <= max(cutout.shape[:2]) <= OBJECT_PX[1]
        assert cutout[..., 3].max() == 255
    assert np.ptp([cutout[..., :3].mean() for cutout in drawn]) > 10


def test_texts_tell_places_and_lists(painter):
    rng = np.random.default_rng(4)
    scene = next(
        s
        for s in (painter.paint(rng) for _ in range(200))
        if len(s.places) == 3 and len(s.places[0]) == 2
    )
    phrases = [text for text, phrase in scene.segments if phrase >= 0]
    plain = scene_segments(scene, rng, CaptionConfig(lists=0.0, placed=0.0))
    assert plain == list(scene.segments)
    placed = scene_segments(scene, rng, CaptionConfig(lists=0.0, placed=1.0))
    (first, second) = scene.places[0]
    pair = f"{ROWS[first[0]]} {COLUMNS[first[1]]} {ROWS[second[0]]} {COLUMNS[second[1]]}"
    assert placed[:2] == [(phrases[0], 0), (pair, -1)]
    assert [part for part in placed if part in plain] == plain
    orders = {
        tuple(
            text
            for text, phrase in scene_segments(scene, rng, CaptionConfig(lists=1.0, placed=0.0))
            if phrase >= 0
        )
        for _ in range(40)
    }
    assert len(orders) == 6
    assert all(sorted(order) == sorted(phrases) for order in orders)
    assert [p for _, p in scene_segments(scene, rng, CaptionConfig(lists=1.0)) if p >= 0] == [
        0,
        1,
        2,
    ]


def told(sample):
    """A sample as a painted scene, for texts without places."""
    return PaintedScene(np.asarray(sample.load_image()), sample.segments, ())


@pytest.mark.parametrize("bf16", [False, True])
def test_captions_are_learnt(samples, bf16):
    """In bfloat16 too: weights that autocast keeps from the first step would stop it early."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer)
    config = CaptionConfig(
        steps=30, batch_size=4, lr=3e-3, warmup_steps=5, lists=0, placed=0, foreign=0, bf16=bf16
    )
    losses = list(train_captions(model, tokenizer, Still(told(samples[0])), config))
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
    assert right["tokens"] > 0.8


def test_tower_learns_the_names(samples):
    torch.manual_seed(0)
    model = build_demo_llava(word_tokenizer())
    scenes = [told(sample) for sample in samples]
    for row, sample in zip(names_in(scenes), samples, strict=True):
        names = {name for name, hit in zip(CONCEPTS, row) if hit}
        assert len(names) == len(sample.phrases)
        assert all(any(name in phrase.text for phrase in sample.phrases) for name in names)
    config = CaptionConfig(steps=24, batch_size=2, lr=2e-3, warmup_steps=3)
    losses = [loss for loss, _ in train_names(model, Still(scenes[0]), config)]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert name_recall(
        torch.tensor([[3.0, 2, 1], [0, 5, 1]]), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    ) == pytest.approx(2 / 3)


def test_matrices_of_layers_are_muons():
    model = build_demo_llava(word_tokenizer())
    muon, adam = optimizers_of(list(model.named_parameters()), CaptionConfig())
    counts = [
        sum(p.numel() for group in o.param_groups for p in group["params"]) for o in (muon, adam)
    ]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert all(p.ndim == 2 for group in muon.param_groups for p in group["params"])
    assert counts[0] > 0.8 * sum(counts)


def test_pretraining_writes_weights_that_load(tmp_path, painter):
    names = CaptionConfig(steps=1, batch_size=2, warmup_steps=1)
    captions = CaptionConfig(steps=3, batch_size=2, warmup_steps=1)
    about = pretrain(tmp_path / "w.safetensors", names, captions, painter=painter, held_out=2)
    assert load_weights(build_demo_llava(word_tokenizer()), tmp_path / "w.safetensors") == about
    assert about["captions"]["steps"] == 3
    assert 0 <= about["test"]["names"] <= 1
