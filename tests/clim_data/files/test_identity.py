"""A name finds its own image or none: exact, in another spelling, by its key, or bare."""

import unicodedata

import pytest
from clim_data.files.identity import SampleName, SampleNames


def files(*names, folder="photos"):
    return SampleNames([SampleName(name, name, folder) for name in names])


def shard(*pairs):
    return SampleNames([SampleName(whole, key) for whole, key in pairs])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.jpg", 0),
        ("photos/a.jpg", 0),
        (".\\sub\\b c.jpg", 1),
        ("photos\\sub\\b%20c.jpg", 1),
        ("b c.jpg", 1),  # bare, and alone with this last part
        ("a.png", 0),  # alone without its ending
        ("train2017/a.jpg", -1),
        ("other/b c.jpg", -1),
        ("gone.jpg", -1),
        (unicodedata.normalize("NFC", "é.jpg"), 2),
    ],
)
def test_names_of_files(name, place):
    samples = files("a.jpg", "sub/b c.jpg", unicodedata.normalize("NFD", "é.jpg"))
    assert samples.find(name) == place


def test_exact_names_go_first_and_fall_backs_hit_no_other_image():
    assert files("a b.jpg", "a%20b.jpg").match(["a%20b.jpg", "a b.jpg"]).places == [1, 0]
    assert files("a.jpg").match(["a.png", "a.jpg"]).places == [-1, 0]
    assert files("a.jpg").match(["a.png", "a.webp"]).places == [-1, -1]
    assert files("dogs/1.png").match(["1.png", "dogs/1.png"]).places == [-1, 0]
    matches = files("dogs/1.png", "cats/1.png").match(["1.png"])
    assert (matches.places, "dogs/1.png and cats/1.png" in matches.details[0]) == ([-1], True)
    assert files("photo.jpg").find("photo.v2") == -1


def test_file_names_of_shards_go_before_their_keys():
    packed = shard(("cats/1.png", "1"), ("dogs/1.png", "1-2"))
    assert packed.match(["dogs/1.png", "cats/1.png"]).places == [1, 0]
    matches = packed.match(["1-2.png"])
    assert matches.places == [-1]
    assert "another image, dogs/1.png" in matches.details[0]
    assert packed.find("cows/1.png") == -1


def test_keys_of_shards_without_file_names():
    keys = shard(("", "00001"), ("", "x/00002"), ("", "a%20b"))
    assert keys.match(["00001.jpg", "x/00002.png", "a b.jpg"]).places == [0, 1, 2]
    assert keys.match(["train2017/00001.jpg", "00002.jpg"]).places == [0, 1]
    assert keys.match(["cats/00001.jpg", "dogs/9.jpg"]).places == [-1, -1]
    with pytest.raises(ValueError, match=r"00001\.jpg and 00001\.png fit one sample, 00001"):
        keys.match(["00001.jpg", "00001.png"])
    with pytest.raises(ValueError, match=r"1\.jpg fits several samples of the sources, 1 and 1"):
        shard(("", "1"), ("", "1")).find("1.jpg")


def test_two_equal_names_are_refused():
    with pytest.raises(ValueError, match=r"two names that mean a\.jpg fit one sample"):
        files("a.jpg").match(["a.jpg", "./a.jpg"])
    with pytest.raises(ValueError, match=r"a\.jpg fits several samples"):
        files("a.jpg", "a.jpg").find("a.jpg")


def test_places_by_sample():
    assert files("a.jpg", "b.jpg").match(["c.jpg", "b.jpg"]).rows(2) == [-1, 1]
