"""Captions in spreadsheets: csv and tsv files whose first line names the columns."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from clim_data.faults import BrokenSample
from clim_data.files.text import plain_text, read_text

SHEETS = (".csv", ".tsv")
NAME_COLUMNS = ("file_name", "filename", "file", "image", "path")
TEXT_COLUMNS = ("text", "caption", "captions")
SEPARATORS = ",;\t"


def read_sheet(path: Path) -> Iterator[tuple[str, str | None, str | None]]:
    """Read the rows of a spreadsheet as (place, file name, text); an empty cell is None.

    The file is UTF-8 or UTF-16, and cells are separated by the one of comma, semicolon and tab
    that its first line has most of.

    Raises:
        ValueError: the first line names no column of file names or none of captions, or the file
            is not text.
    """
    lines = io.StringIO(read_text(path), newline="")
    first = lines.readline()
    lines.seek(0)
    separator = max(SEPARATORS, key=first.count)
    rows = csv.reader(lines, delimiter=separator)
    head = [plain_text(cell).lower() for cell in next(rows, [])]
    name_at = _column(head, NAME_COLUMNS, path)
    text_at = _column(head, TEXT_COLUMNS, path)
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                place = f"{path}, line {rows.line_num}"
                yield place, _cell(row, name_at), _cell(row, text_at)
    except csv.Error as error:
        raise BrokenSample("bad row", f"{path}, line {rows.line_num}", str(error)) from None


def _column(head: list[str], names: tuple[str, ...], path: Path) -> int:
    for name in names:
        if name in head:
            return head.index(name)
    raise ValueError(
        f"the first line of {path} names no column {', '.join(names[:-1])} or {names[-1]}: write "
        f'"{NAME_COLUMNS[0]},{TEXT_COLUMNS[0]}" above the rows'
    )


def _cell(row: list[str], place: int) -> str | None:
    text = plain_text(row[place]) if place < len(row) else ""
    return text or None
