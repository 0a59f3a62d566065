"""Files of phrases whose presence is known, and mistakes in them."""

import json

import numpy as np
import pytest
from clim_data.pixels import encode_mask
from flmm.training.presence import HARD, PRESENT
from flmm.training.probe_files import ProbedFile, ProbedSamples, read_probe_records
from tiny_grounding import Pictures
from tiny_lmms import picture

THERE = {"image": "a.png", "phrase": "a red car", "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
NOT_THERE = {"image": "a.png", "phrase": "a blue car", "present": False}


def lines(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_images_come_with_their_phrases_and_masks(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    picture(20, 30, seed=1).save(folder / "a.png")
    picture(24, 24, seed=2).save(folder / "b.png")
    (folder / "broken.png").write_bytes(b"no image")
    mask = np.zeros((24, 24), dtype=bool)
    mask[3:9, 5:20] = True
    file = lines(
        tmp_path / "phrases.jsonl",
        THERE,
        {"image": "b.png", "phrase": "a dog", "segmentation": encode_mask(mask)},
        NOT_THERE,
        {"image": "broken.png", "phrase": "a dog", "present": False},
        {"image": "none.png", "phrase": "a dog", "present": False},
    )
    images = ProbedFile(str(folder), file)
    first, second = images
    assert first.image.size == (30, 20)
    found = {probe.text: probe for text in first.texts for probe in text}
    assert {text: probe.kind for text, probe in found.items()} == {
        "a red car": PRESENT,
        "a blue car": HARD,
    }
    assert found["a red car"].mask.shape == (20, 30)
    assert np.array_equal(second.texts[0][0].mask, mask)
    assert {fault.name for fault in images.skipped.faults} == {"broken.png", "none.png"}
    assert len(list(ProbedFile(str(folder), file, limit=1))) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "a.png"}, 'needs the texts "image" and "phrase"'),
        ({**THERE, "mask": "a.png"}, r"has \['mask'\]: write a line such as"),
        ({"image": "a.png", "phrase": "a car"}, 'is there needs a "segmentation"'),
        ({**THERE, "present": False}, 'is not needs "present": false and no segmentation'),
        ({**NOT_THERE, "present": "no"}, "present"),
        ({**NOT_THERE, "phrase": " "}, "empty"),
        (["a car"], "is no object: write a line"),
    ],
)
def test_a_bad_line_is_named(tmp_path, record, message):
    file = lines(tmp_path / "phrases.jsonl", THERE, record)
    with pytest.raises(ValueError, match=message):
        read_probe_records(file)


def test_a_file_holds_each_phrase_once(tmp_path):
    again = {**NOT_THERE, "phrase": THERE["phrase"]}
    with pytest.raises(ValueError, match=r"'a red car' of a\.png is there twice"):
        read_probe_records(lines(tmp_path / "two.jsonl", THERE, again))
    with pytest.raises(ValueError, match="holds no phrase: write lines such as"):
        read_probe_records(lines(tmp_path / "none.jsonl"))
    folder = tmp_path / "images"
    folder.mkdir()
    picture(8, 8, seed=1).save(folder / "z.png")
    file = lines(tmp_path / "a.jsonl", THERE)
    with pytest.raises(ValueError, match="check the folder and the names"):
        ProbedFile(str(folder), file)


def test_samples_of_a_data_set_are_joined_by_image():
    data = Pictures([2, None, 3])
    images = ProbedSamples(data)
    found = list(images)
    assert [sum(map(len, one.texts)) for one in found] == [2, 3]
    assert {probe.kind for one in found for text in one.texts for probe in text} == {PRESENT}
    assert images.skipped.total == 1


def test_one_image_under_two_names_is_refused(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    picture(20, 30, seed=1).save(folder / "a.png")
    file = lines(tmp_path / "phrases.jsonl", THERE, {**NOT_THERE, "image": "./a.png"})
    with pytest.raises(ValueError, match=r"two names that mean a\.png fit one sample"):
        ProbedFile(str(folder), file)
