"""Scenes with narratives: read by the reader of Panoptic Narrative Grounding; words, order, masks
and splits."""

import json

import numpy as np
import pytest
from clim_data.drawings.emoji import load_emoji
from clim_data.drawings.narrative_scenes import (
    CONCEPTS,
    NarrativeOptions,
    compose_narrative_scenes,
    narrative,
    narrative_words,
    noun_phrase,
    scene_vendors,
)
from clim_data.drawings.scenes import Scene
from PIL import Image


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return compose_narrative_scenes(
        tmp_path_factory.mktemp("scenes"),
        vendor="noto",
        count=30,
        options=NarrativeOptions(pairs=0.4, gap_px=6),
        seed=5,
    )


def test_the_reader_finds_every_object_with_its_words(scenes):
    data = scenes.read()
    panoptic = {
        a["image_id"]: a for a in json.loads(scenes.scenes.panoptic_json.read_text())["annotations"]
    }
    names = dict(enumerate(scenes.scenes.classes, start=1))
    assert len(data) == 30
    assert not data.skipped.total
    plurals = 0
    for sample in (data[i] for i in range(len(data))):
        infos = panoptic[sample.image_id]["segments_info"]
        category = {info["id"]: names[info["category_id"]] for info in infos}
        image, masks = sample.load()
        assert masks.shape == (len(sample.phrases), image.height, image.width)
        assert sum(masks.sum((1, 2))) == sum(info["area"] for info in infos)
        for phrase in sample.phrases:
            (name,) = {category[i] for i in phrase.objects}
            assert phrase.text == noun_phrase(name, len(phrase.objects))
            assert phrase.is_plural == (len(phrase.objects) > 1)
            assert phrase.is_thing
            plurals += phrase.is_plural
        assert sorted(i for p in sample.phrases for i in p.objects) == sorted(category)
    assert 5 <= plurals <= 20


def test_phrases_come_from_left_to_right(scenes):
    data = scenes.read()
    gaps = []
    for sample in (data[i] for i in range(len(data))):
        centres = [mask.nonzero()[1].mean() for mask in sample.load()[1]]
        gaps += np.diff(centres).tolist()
    assert min(gaps) > 0
    assert np.mean(np.array(gaps) >= 6) > 0.9


def test_words_are_few_and_known(scenes):
    words = set(narrative_words(scenes.scenes.classes))
    captions = [sample.caption for sample in (scenes.read()[i] for i in range(30))]
    assert {word for caption in captions for word in caption.split()} <= words
    assert all(caption.split()[0] in ("a", "an", "two") for caption in captions)
    assert all(caption.endswith(" .") and caption.count("left of") == 1 for caption in captions)
    assert len(words) == 2 * len(CONCEPTS) + 8


def test_the_grammar_by_hand():
    segments = np.zeros((4, 12), np.int32)
    segments[:, 8:10], segments[1, 4], segments[0, 0], segments[3, 2] = 1, 2, 3, 4
    scene = Scene(np.zeros((4, 12, 3), np.uint8), segments, ("bus", "anchor", "cat", "cat", "owl"))
    told = narrative(scene, image_id=7)
    assert told["caption"] == "two cats left of an anchor and a bus ."  # the owl is covered
    assert [s["segment_ids"] for s in told["segments"]] == [["3", "4"], [], ["2"], [], ["1"], []]
    assert told["image_id"] == "7"
    four = Scene(scene.image, np.arange(4, dtype=np.int32)[None] + 1, ("bus", "cat", "dog", "owl"))
    assert narrative(four, image_id=1)[
        "caption"
    ] == "a bus left of a cat , a dog and a owl .".replace("a owl", "an owl")
    one = Scene(scene.image, np.ones((1, 1), np.int32), ("bus",))
    assert narrative(one, image_id=1)["caption"] == "a bus ."
    assert noun_phrase("bus", 2) == "two buses"


def test_a_scene_depends_on_its_number_and_the_seed_only(scenes, tmp_path):
    few = compose_narrative_scenes(
        tmp_path / "a",
        vendor="noto",
        count=3,
        options=NarrativeOptions(pairs=0.4, gap_px=6),
        seed=5,
    )
    other = compose_narrative_scenes(
        tmp_path / "b",
        vendor="noto",
        count=3,
        options=NarrativeOptions(pairs=0.4, gap_px=6),
        seed=6,
    )
    for i in range(3):
        assert few.read()[i].caption == scenes.read()[i].caption
        name = few.read()[i].image.name
        pictures = [np.asarray(Image.open(s.scenes.images / name)) for s in (few, scenes, other)]
        assert np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[0], pictures[2])


def test_held_out_drawings_and_concepts_are_kept_out_of_training():
    emoji = load_emoji()
    split = emoji.split()
    assert set(CONCEPTS) <= set(split.train_concepts)
    assert not set(CONCEPTS) & {*split.test_concepts, *split.val_concepts}
    assert scene_vendors(split, "train") == scene_vendors(split, "val") == split.train_vendors
    assert scene_vendors(split, "test") == (split.test_vendor,)
    assert all(emoji.has(split.test_vendor, name) for name in CONCEPTS)
    with pytest.raises(ValueError, match="choose from train, val, test"):
        scene_vendors(split, "dev")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": (0, 2)}, "must rise from at least 1"),
        ({"pairs": 1.5}, "share between 0 and 1"),
        ({"object_px": (1, 9)}, "must rise from at least 2"),
        ({"image_px": 40}, "must fit in 40 px"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NarrativeOptions(**options)


def test_wishes_that_the_drawings_cannot_meet_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must rise within 1\.\.2"):
        compose_narrative_scenes(tmp_path, vendor="noto", concepts=("cat", "dog"), count=1)

    large = NarrativeOptions(object_px=(24, 90), image_px=192)
    with pytest.raises(ValueError, match="drawings have 64 px"):
        compose_narrative_scenes(tmp_path, vendor="noto", count=1, options=large)
