"""Names of pictures: formats, folders, and the input that stays."""

import pytest
from clim_models.pipelines import picture_path, write_picture
from PIL import Image


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_ending_says_the_format(tmp_path, name, kind):
    path = tmp_path / "new" / name
    write_picture(Image.new("RGB", (4, 3)), path)
    with Image.open(path) as written:
        assert (written.format, written.size) == (kind, (4, 3))


@pytest.mark.parametrize("name", ["a", "a.gif", "a.json", "v1.2", ".png"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"end it with \.jpg, \.png or \.webp"):
        picture_path(tmp_path / name)


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match=r"is a folder: name the picture"):
        picture_path(tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write into .*name another place"):
        picture_path(tmp_path / "file" / "a.png")


def test_an_older_picture_is_replaced_but_the_input_is_not(tmp_path):
    source, older = tmp_path / "photo.png", tmp_path / "found.png"
    for path in (source, older):
        write_picture(Image.new("RGB", (4, 3)), path)
    assert picture_path(older, source=source) == older
    assert picture_path(older, source="https://example.org/found.png") == older
    link = tmp_path / "link.png"
    link.symlink_to(source)
    with pytest.raises(ValueError, match="would replace the input picture"):
        picture_path(link, source=source)
