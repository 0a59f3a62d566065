"""Large json files item by item: an annotation file of gigabytes is filtered in the memory of one
of its records."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from clim_data.files.atomic import write_whole
from clim_data.files.text import open_text

CHUNK = 1 << 20  # characters
_SPACE = " \t\n\r"
_AFTER_VALUE = tuple(_SPACE + ",:]}")


def stream_json(path: str | Path, *, chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """Yield (name, item) of every item of every list of the file's outermost object, in order.

    Values that are no lists come whole, as (name, value). A file whose outermost value is a list
    gives ("", item). `chunk` is the number of characters that are read at a time.

    Raises:
        FileNotFoundError: no such file. ValueError: not json (cut off while copying?), or neither
            object nor list.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no json file {path}: `clim-data doctor` says where official files come from"
        )
    with open_text(path) as stream:
        text = _Text(stream, chunk)
        try:
            yield from _outermost(text)
        except (ValueError, RecursionError) as fault:
            raise ValueError(
                f"{path} is not a whole json file ({fault}): fetch it again, it may be cut off"
            ) from None


def _outermost(text: "_Text") -> Iterator[tuple[str, Any]]:
    if text.peek() == "[":
        yield from (("", item) for item in _items(text))
    else:
        text.take("{")
        while text.peek() != "}":
            name = text.value()
            text.take(":")
            if text.peek() == "[":
                yield from ((name, item) for item in _items(text))
            else:
                yield name, text.value()
            if text.peek() != "}":
                text.take(",")
        text.take("}")
    text.end()


def _items(text: "_Text") -> Iterator[Any]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


class _Text:
    """A window on the characters of a json file that is filled as it is read."""

    def __init__(self, stream: IO[str], chunk: int):
        self.stream, self.chunk = stream, chunk
        self.window, self.at = "", 0
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Next character that is no space, or "" at the end of the file."""
        while True:
            while self.at < len(self.window) and self.window[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.window):
                return self.window[self.at]
            if not self._fill(self.chunk):
                return ""

    def take(self, expected: str) -> None:
        found = self.peek()
        if found != expected:
            raise ValueError(f"expected {expected!r}, found {found or 'the end of the file'!r}")
        self.at += 1

    def value(self) -> Any:
        """Next value. More is read, twice as much each time, until it parses and something follows
        it."""
        self.peek()
        more = self.chunk
        while True:
            try:
                value, end = self.decoder.raw_decode(self.window, self.at)
                if self.window[end : end + 1] in _AFTER_VALUE:  # else a number could go on
                    self.at = end
                    return value
                fault = ValueError(
                    "a value is followed by "
                    f"{self.window[end : end + 1] or 'the end of the file'!r}"
                )
            except ValueError as cut:
                fault = cut
            if not self._fill(more):
                raise fault
            more *= 2

    def end(self) -> None:
        if self.peek():
            raise ValueError(f"{self.peek()!r} after the end")

    def _fill(self, size: int) -> bool:
        more = self.stream.read(size)
        self.window, self.at = self.window[self.at :] + more, 0
        return bool(more)


def write_coco(path: str | Path, parts: dict[str, Any]) -> None:
    """Write a json object item by item to a file that is either whole or absent.

    `parts` maps names to values in file order; lists and other iterables are written one item at a
    time.
    """
    with write_whole(path) as draft, open(draft, "w", encoding="utf-8") as out:
        for number, (name, value) in enumerate(parts.items()):
            out.write(f"{',' if number else '{'}{json.dumps(name)}:")
            if isinstance(value, Iterable) and not isinstance(value, str | dict):
                _write_items(out, value)
            else:
                out.write(compact(value))
        out.write("}")


def _write_items(out: IO[str], items: Iterable) -> None:
    out.write("[")
    for number, item in enumerate(items):
        out.write(("," if number else "") + compact(item))
    out.write("]")


def compact(value: Any) -> str:
    """Return json text without spaces, as `write_coco` writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
