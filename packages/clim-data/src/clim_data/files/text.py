"""Text of people and other programs: one decoder, one rule for the end of a line.

Captions, lists of names, jsonl, json and prompts are all read here. A byte order mark decides
between UTF-8 and UTF-16; without one the text must be UTF-8. Text in any other code is refused and
named, because a wrong guess would train on garbage.
"""

import codecs
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from clim_data.command_line.checks import need_path
from clim_data.faults import BrokenSample

# Python's str.splitlines also cuts at U+2028, U+0085 and form feeds, which are part of a text.
_LINE_END = re.compile(r"\r\n|\n|\r")
_INVISIBLE = "\ufeff\u200b\u2060"  # byte order mark in the middle of a file, and spaces of width 0


def decode_text(data: bytes, name: str, reason: str = "bad text") -> str:
    """Decode text in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Args:
        data: the bytes of a whole file.
        name: what to call the file in an error.
        reason: class of the fault in an error.

    Raises:
        BrokenSample: the bytes are in another code; it names the first byte that does not fit.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        code = "utf-16"
    else:
        code = "utf-8"

    try:
        text = data.decode(code).removeprefix("\ufeff")
    except UnicodeDecodeError as fault:
        where = f"byte 0x{data[fault.start]:02x} at {fault.start}"
        kind = "UTF-16" if code == "utf-16" else "UTF-8"
        raise BrokenSample(reason, name, f"not {kind} ({where}): save it as UTF-8") from None

    if "\0" in text:  # UTF-16 or UTF-32 without its mark decodes as UTF-8, with zeros
        detail = f"it holds a zero byte at {text.index(chr(0))}: save it as UTF-8"
        raise BrokenSample(reason, name, detail)
    return text


def read_text(path: str | Path, reason: str = "bad text") -> str:
    """Read a text file whole: see `decode_text`.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenSample: the file is in another code, or cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no file {path}: check the path") from None
    except OSError as fault:
        raise BrokenSample(reason, str(path), fault.strerror or str(fault)) from None
    return decode_text(data, str(path), reason)


def open_text(path: str | Path) -> IO[str]:
    """Open a large text file for reading in parts, in the code that its byte order mark states.

    Bytes that do not fit raise UnicodeDecodeError, a ValueError, when they are read.
    """
    with open(path, "rb") as stream:
        mark = stream.read(2)
    wide = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return open(path, encoding="utf-16" if wide else "utf-8-sig")


def split_lines(text: str) -> list[str]:
    r"""Split a text at \n, \r\n and \r, and at nothing else."""
    return _LINE_END.split(text)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text (see `split_lines`) without outer spaces, and no empty ones."""
    lines = [plain_text(line) for line in split_lines(text)]
    return [line for line in lines if line]


def read_lines(path: str | Path, reason: str = "bad text") -> list[str]:
    """Read the lines of a text file that are not empty; raises as `read_text`."""
    return lines_of(read_text(path, reason))


def plain_text(text: str) -> str:
    """Strip white space and invisible marks from both ends of a text."""
    stripped = text.strip()
    while stripped and (stripped[0] in _INVISIBLE or stripped[-1] in _INVISIBLE):
        stripped = stripped.strip(_INVISIBLE).strip()
    return stripped


def composed(text: str) -> str:
    """Return the spelling in which texts are compared: an accent and its letter are one character
    (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def parse_json(
    text: str | bytes, name: str, reason: str = "bad json", *, pairs: Callable | None = None
) -> Any:
    """Parse json text, or the bytes of a json file (decoded as `decode_text`).

    Args:
        text: the text, or its bytes.
        name: what to call it in an error.
        reason: class of the fault in an error.
        pairs: makes a value of an object's list of (name, value); default: a dict.

    Raises:
        BrokenSample: the code or the json is damaged.
    """
    if isinstance(text, bytes):
        text = decode_text(text, name, reason)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as fault:
        raise BrokenSample(reason, name, f"{fault}") from None


def read_names(path: Path, option: str) -> list[str]:
    """Read the names of a text file, one per line; empty lines do not count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a name occurs twice (each name is one class), there is none, or the text is
            neither UTF-8 nor UTF-16 with a byte order mark.
    """
    need_path(path, option)
    names = read_lines(path)
    counts = Counter(map(composed, names))
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(f"{path} has {repeated[:5]} more than once: keep one line for each name")
    if not names:
        raise ValueError(f"{path} holds no name: write one a line")
    return names
