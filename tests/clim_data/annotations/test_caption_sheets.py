"""Captions in csv files, as spreadsheets write them."""

import pytest
from clim_data.annotations.caption_files import caption_table_in, read_caption_table
from clim_data.sources.folders import FolderIndex
from clim_data.sources.items import folder_items
from clim_data.survey import survey_folder


@pytest.fixture
def folder(tmp_path, images):
    """Two images, `my trip 1.png` and `2.png`."""
    for name in ("my trip 1.png", "2.png"):
        (tmp_path / name).write_bytes(images.encoded(images.pixels(1, 8, 8), "PNG"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('file_name,text\nmy trip 1.png,"a dog, running"\n2.png,a \u201cbig\u201d sofa\n', "utf-8"),
        (
            "File;Caption\r\nmy trip 1.png;a dog, running\r\n2.png;a \u201cbig\u201d sofa\r\n",
            "utf-8-sig",
        ),
        (
            "caption\timage\na dog, running\tmy trip 1.png\na \u201cbig\u201d sofa\t2.png\n",
            "utf-16",
        ),
    ],
)
@pytest.mark.parametrize("name", ["metadata.csv", "captions.csv"])
def test_separators_codes_and_heads_of_spreadsheets(folder, text, code, name):
    (folder / name).write_bytes(text.encode(code))
    expected = {"my trip 1.png": ["a dog, running"], "2.png": ["a \u201cbig\u201d sofa"]}
    assert read_caption_table(folder / name).captions == expected
    assert {item.name: item.meta["captions"] for item in folder_items(folder).items} == expected
    assert FolderIndex.of(folder).has_text.all()
    found = survey_folder(folder)
    assert (found.captioned, found.caption_source) == (2, name)


def test_rows_of_one_image_are_its_captions_and_strange_rows_are_named(folder):
    path = folder / "metadata.csv"
    path.write_text('file_name,text\n2.png,a sofa\n\n2.png,"two\nlines"\n,lost\nmy trip 1.png,\n')
    rows = read_caption_table(path)
    assert rows.captions == {"2.png": ["a sofa", "two\nlines"], "my trip 1.png": []}
    assert [fault.name for fault in rows.faults] == [f"{path}, line 6"]
    assert FolderIndex.of(folder).why_no_captions("my trip 1.png") == (
        "metadata.csv has no caption for it"
    )


def test_a_sheet_without_heads_says_what_to_write(folder):
    (folder / "metadata.csv").write_text("2.png,a sofa\n")
    with pytest.raises(ValueError, match='write "file_name,text" above the rows'):
        folder_items(folder)


def test_two_tables_are_refused(folder):
    (folder / "metadata.csv").write_text("file,text\n")
    (folder / "metadata.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"metadata\.jsonl and metadata\.csv: keep one"):
        caption_table_in(folder)
