"""Class folders: which folder is which class, with and without a list of names."""

import pytest
from clim_data.readers.labelled_images import ClassFolders, class_images


@pytest.fixture
def classes(tmp_path, images):
    """Make a folder of class folders, each with one image."""

    def make(*names):
        for name in names:
            (tmp_path / "data" / name).mkdir(parents=True)
            data = images.encoded(images.pixels(1, 8, 8), "PNG")
            (tmp_path / "data" / name / "a.png").write_bytes(data)
        return tmp_path / "data"

    return make


def order(data):
    return [name.partition("/")[0] for name in data.listing()]


def test_numbers_are_in_the_order_of_the_numbers(classes):
    folder = classes(*map(str, range(12)))
    names = [f"class {i}" for i in range(12)]
    data = ClassFolders(folder, 8, names=names)
    assert order(data) == list(map(str, range(12)))
    assert [label for _, label in data.items] == list(range(12))


def test_hidden_folders_are_no_classes_and_other_formats_are_named(classes):
    folder = classes("cat", ".ipynb_checkpoints", "empty", "bitmap")
    (folder / "empty" / "a.png").unlink()
    (folder / "bitmap" / "a.png").rename(folder / "bitmap" / "a.bmp")
    (folder / "cat" / "._a.png").write_bytes(b"")
    data = class_images(folder, 8)
    assert data.class_names == ["bitmap", "cat", "empty"]
    assert data.listing() == ["cat/a.png"]
    assert data.skipped.names == {"unsupported format": ["data/bitmap/a.bmp"]}


def test_names_of_the_folders_in_another_order_go_with_their_folders(classes):
    data = ClassFolders(classes("cat", "dog", "ant"), 8, names=["dog", "cat", "ant"])
    assert order(data) == ["dog", "cat", "ant"]
    assert [label for _, label in data.items] == [0, 1, 2]


@pytest.mark.parametrize(
    ("folders", "names", "message"),
    [
        (["cat", "dog"], ["dog", "a cat"], "dog is name 0 of the list and folder 1"),
        (["c1", "c2", "c10"], ["x", "y", "z"], r"count in text order \(c1, c10, c2"),
        (["a"], ["x", "y"], "2 names for 1 class folders"),
    ],
)
def test_names_that_could_go_with_other_folders_are_refused(classes, folders, names, message):
    with pytest.raises(ValueError, match=message):
        ClassFolders(classes(*folders), 8, names=names)


def test_a_missing_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothere matches no file: check the path"):
        class_images(tmp_path / "nothere", 8)
