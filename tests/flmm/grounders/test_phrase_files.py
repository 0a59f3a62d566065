"""Phrases of many images: lines, lists, and lists by image."""

import json

import pytest
from clim_data.files import SampleName, SampleNames
from flmm.grounders.phrase_files import PhraseList

NAMES = SampleNames([SampleName(f"{n}.jpg", f"{n}.jpg", "photos") for n in ("a", "b", "c")])


def test_lines_and_lists_are_phrases_of_every_image(tmp_path):
    lines, listed = tmp_path / "phrases.txt", tmp_path / "phrases.json"
    lines.write_text("a red car\n\n the sky \n")
    listed.write_text('["a red car", "the sky"]')
    for path in (lines, listed):
        found = PhraseList.read(path)
        assert found == PhraseList(("a red car", "the sky"))
        assert found.for_images(NAMES) == ([found.shared] * 3, [])
        assert found.of_picture("b.jpg") == ["a red car", "the sky"]


def test_images_have_phrases_of_their_own(tmp_path):
    path = tmp_path / "phrases.json"
    content = {"c.jpg": ["a dog", "a cat"], "photos/a.jpg": "a cat", "d.jpg": ["a tree"]}
    path.write_text(json.dumps(content))
    found = PhraseList.read(path)
    assert found.categories == ["a dog", "a cat", "a tree"]
    phrases, faults = found.for_images(NAMES)
    assert phrases == [("a cat",), (), ("a dog", "a cat")]
    assert [(fault.reason, fault.name) for fault in faults] == [("missing image", "d.jpg")]
    with pytest.raises(ValueError, match=r"not of e.jpg: pass the folder"):
        found.of_picture("e.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no phrase"),
        ('{"a.jpg": [3]}', "3 is no phrase: write a list of texts"),
        ('["a", " "]', "phrase 2 of 2 is empty"),
        ("[", "not a whole json file"),
    ],
)
def test_what_is_no_list_of_phrases_is_refused(content, message, tmp_path):
    path = tmp_path / "phrases.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        PhraseList.read(path)


def test_a_phrase_of_a_folder_is_there_once():
    with pytest.raises(ValueError, match="'a cat' is there twice: keep it once"):
        PhraseList.of(["a cat", "a dog", "a cat"]).for_images(NAMES)
