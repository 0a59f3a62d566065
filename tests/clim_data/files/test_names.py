"""Names: one spelling, keys that never meet, files that are found by other spellings."""

import unicodedata
from urllib.parse import unquote

import pytest
from clim_data.faults import BrokenSample
from clim_data.files.names import (
    image_file_name,
    is_image,
    is_other_image,
    locate,
    printable,
    sample_key,
    spelling,
    stem_of,
)

CAFE = unicodedata.normalize("NFC", "café.png")


def test_one_spelling():
    decomposed = unicodedata.normalize("NFD", CAFE)
    for name in (CAFE, decomposed, "./" + decomposed, "x/../caf%C3%A9.png", "x\\..\\" + CAFE):
        assert spelling(name) == CAFE
    assert spelling("100%.png") == "100%.png"
    assert spelling("a%E9.png") == "a%E9.png"


def test_only_endings_of_images_are_cut():
    assert [stem_of(n) for n in ("a/22.05.JPG", "a.bmp", "photo.v2", "d.x/a", ".png")] == [
        *("a/22.05", "a", "photo.v2", "d.x/a", ".png")
    ]
    assert (is_image("a/b.WebP"), is_image("a/.b.png"), is_image("b.bmp")) == (True, False, False)
    assert is_other_image("b.BMP")
    assert not is_other_image("._b.bmp")


def test_keys_tell_all_names_apart_and_decode_to_them():
    names = ["a b", "a_b", "a/b", "a.b", "a%20b", "a-2", "é", "v1.2/cat"]
    keys = [sample_key(name + ".jpg") for name in names]
    assert [unquote(key) for key in keys] == names
    assert len(set(keys)) == len(names)
    assert all(not set(key) & set("./ ") for key in keys)
    assert sample_key("000000000139.jpg") == "000000000139"


def test_files_are_found_in_other_spellings(tmp_path):
    folder = tmp_path / "train"
    (folder / "sub").mkdir(parents=True)
    decomposed = unicodedata.normalize("NFD", CAFE)
    for name in (decomposed, "a b.png", "c.png", "sub/d.png"):
        (folder / name).write_bytes(b"")
    assert locate(folder, CAFE).name == decomposed
    assert locate(folder, "a%20b.png").name == "a b.png"
    for name in ("train\\c.png", "./c.png", "train/c.png", "sub\\..\\c.png"):
        assert locate(folder, name).samefile(folder / "c.png")
    assert locate(folder, "train\\sub\\d.png").samefile(folder / "sub/d.png")
    (folder / CAFE).write_bytes(b"")
    assert locate(folder, CAFE).name == CAFE  # the exact name goes first
    (tmp_path / "x.png").write_bytes(b"")
    for name, reason in (("%2e%2e/x.png", "missing image"), ("../x.png", "outside the folder")):
        with pytest.raises(BrokenSample, match=reason):
            locate(folder, name)


@pytest.mark.parametrize("name", ["\ud83d.png", 5, ["a.png"], "a\0.png"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(BrokenSample, match=r"bad file name|outside the folder") as fault:
        locate(tmp_path, image_file_name({"id": 1, "file_name": name}))
    str(fault.value).encode()


def test_names_that_are_not_utf8_can_be_printed():
    assert printable("caf\udce9.png") == "caf\\xe9.png"
    assert printable("\ud83d.png") == "\\ud83d.png"
    assert printable(CAFE) == CAFE
