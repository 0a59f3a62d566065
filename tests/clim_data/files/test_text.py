"""Text is decoded by its byte order mark or refused; only line feeds and carriage returns end lines."""

import pytest
from clim_data.faults import BrokenSample
from clim_data.files.json_stream import stream_json
from clim_data.files.text import (
    decode_text,
    lines_of,
    parse_json,
    read_lines,
    read_names,
    read_text,
)


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_decide(tmp_path, code):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(code, b"")
    path = tmp_path / "n.txt"
    path.write_bytes(mark + "Hund schön\r\nKatze\n".encode(code))
    assert read_lines(path) == ["Hund schön", "Katze"]
    assert read_names(path, "--names") == ["Hund schön", "Katze"]


def test_a_name_in_two_spellings_is_one_name(tmp_path):
    path = tmp_path / "n.txt"
    path.write_text("caf\u00e9\ndog\ncafe\u0301\n", encoding="utf-8")
    with pytest.raises(ValueError, match="more than once: keep one line for each name"):
        read_names(path, "--names")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "ein schöner Hund".encode("latin-1"),
            r"3\.txt: bad caption: not UTF-8 \(byte 0xf6 at 7\)",
        ),
        ("a cat".encode("utf-16-le"), r"3\.txt: bad caption: it holds a zero byte at 1"),
        ("a cat".encode("utf-32"), r"3\.txt: bad caption: it holds a zero byte"),
        (b"\xff\xfea", r"3\.txt: bad caption: not UTF-16"),
    ],
)
def test_other_codes_are_named_with_the_fix(data, message):
    with pytest.raises(BrokenSample, match=message + ".*save it as UTF-8"):
        decode_text(data, "3.txt", "bad caption")


def test_separators_inside_a_text_end_no_line():
    text = "a dog\u2028on\x0cthe\x0b beach\x85!\ra cat\r\n\n \ufeffa \u2029sofa\u200b\n"
    assert lines_of(text) == ["a dog\u2028on\x0cthe\x0b beach\x85!", "a cat", "a \u2029sofa"]
    assert lines_of("\ufeff \u200b\n") == []


def test_missing_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(BrokenSample, match="bad text: Is a directory"):
        read_text(tmp_path)


def test_json_is_decoded_in_the_same_way(tmp_path):
    for code in ("utf-8", "utf-8-sig", "utf-16"):
        data = '{"images": [{"id": "é"}]}'.encode(code)
        assert parse_json(data, "x") == {"images": [{"id": "é"}]}
        (tmp_path / "x.json").write_bytes(data)
        assert list(stream_json(tmp_path / "x.json")) == [("images", {"id": "é"})]
    with pytest.raises(BrokenSample, match="x: bad json"):
        parse_json("[" * 100_000, "x")
