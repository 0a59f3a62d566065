"""The members of a plain tar, and every stretch of it that is no member.

This is our own loop over the headers, because the standard module trusts them: it ends silently at
the first damaged one, and a hostile one makes it loop for ever. Here each step moves forward, each
number is checked, and each byte of the file is in a member, in padding, in the end mark or in a
`Damage`. Members after a damaged header are found again.

Formats: ustar, GNU and pax (POSIX.1-2001, "pax Interchange Format").
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clim_data.sources.shards import read_range

BLOCK = 512
RECORD = 20 * BLOCK  # writers fill a tar up to a multiple of this
END_MARK = 2 * BLOCK
MAX_NAME_BYTES = 1 << 20  # of one header that holds a long name; hostile ones announce gigabytes
MAX_NAME_HEADERS = 8  # before one member; writers need at most four
_WINDOW = 1 << 20

# First bytes of gzip, bzip2, xz, zstandard and zip.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")

PLAIN_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders and pipes
_KINDS = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class Member:
    """One entry of a tar.

    name: as text; bytes that are not UTF-8 are read as Latin-1. start, size: its bytes in the tar,
    which may end before them. kind: "" for a plain file, else what it is instead ("a link").
    """

    name: str
    start: int
    size: int
    kind: str = ""


@dataclass(frozen=True)
class Damage:
    """Bytes `start` to `stop` of a tar that belong to no member, and the fault at `start`."""

    start: int
    stop: int
    what: str


class BadHeader(ValueError):
    """A block that is not the header of a member; the message has the reason."""


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: bytes
    is_extended: bool  # a sparse file whose map goes on in the next block


@dataclass(frozen=True)
class _Names:
    """The fields of the headers before a member."""

    start: int
    count: int = 0
    name: str | None = None
    size: int | None = None
    is_sparse: bool = False
    fault: str = ""


def read_tar(path: str | Path) -> Iterator[Member | Damage]:
    """Yield the members of a tar and its damaged stretches, in the order of the file.

    A tar without a single header yields one `Damage` from its first byte. Tars that were joined are
    read to the end of the last one. A file that ends early yields a `Damage` of no bytes at its
    end.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        yield from _Reader(stream.fileno()).entries()


class _Reader:
    """One pass over an open tar; `at` only grows."""

    def __init__(self, file: int):
        self.file = file
        self.size = os.fstat(file).st_size
        self.at = 0

    def entries(self) -> Iterator[Member | Damage]:
        if self.size and self._read(0, min(6, self.size)).startswith(_COMPRESSED):
            yield Damage(0, self.size, "a compressed file")
            return

        names: _Names | None = None
        ended = False
        while self.at + BLOCK <= self.size:
            start, block = self.at, self._read(self.at, BLOCK)
            if not block.strip(b"\0"):
                if names is not None:
                    yield Damage(names.start, start, "a name without a file")
                    names = None
                damage = self._skip_empty()
                ended = damage is None
                if damage is not None:
                    yield damage
                continue

            try:
                header = parse_header(block)
                if header.kind in b"LKxg":
                    names = self._add_names(names, header)
                    continue
                member = self._member(header, names)
                after_names, names, ended = names, None, False
                if after_names is not None and after_names.fault:
                    yield Damage(after_names.start, start, after_names.fault)
                yield member
                if self.at > self.size:  # cut off, or a size that lies: something may follow it
                    self.at = start + BLOCK
                    found = self._next_header(self.at)
                    self.at = found if found is not None else self.size
            except BadHeader as fault:
                begin = start if names is None else names.start
                names = None
                found = self._next_header(start + BLOCK)
                self.at = self.size if found is None else found
                yield Damage(begin, self.at, str(fault))

        if names is not None:
            yield Damage(names.start, self.size, "a name without a file")
        elif not ended:
            yield Damage(self.size, self.size, "no end-of-archive mark")

    def _member(self, header: _Header, names: _Names | None) -> Member:
        """Member of a header, and move behind its data."""
        if names is None or names.fault:  # then the header's own name, though it may be cut short
            names = _Names(self.at)
        start = self.at + BLOCK
        size = header.size if names.size is None else names.size
        name = header.name if names.name is None else names.name
        kind = _KINDS.get(header.kind, "" if header.kind in PLAIN_FILES else "no plain file")
        if not kind and name.endswith("/"):
            kind = "a folder"
        if header.kind == b"S":
            start = self._after_sparse_map(header, start)
        elif names.is_sparse:
            kind = _KINDS[b"S"]
        if header.kind in _WITHOUT_DATA:
            size = 0
        self.at = start + padded(size)
        return Member(name, start, size, kind)

    def _after_sparse_map(self, header: _Header, start: int) -> int:
        more = header.is_extended
        while more and start + BLOCK <= self.size:
            more = self._read(start, BLOCK)[504] != 0
            start += BLOCK
        return start

    def _add_names(self, names: _Names | None, header: _Header) -> _Names:
        """Read a header that holds the name of the next member, and move behind it."""
        names = names or _Names(self.at)
        data_at = self.at + BLOCK
        if header.size > MAX_NAME_BYTES or data_at + header.size > self.size:
            raise BadHeader(f"a name of {header.size:,} bytes")
        data = self._read(data_at, header.size)
        self.at = data_at + padded(header.size)

        count = names.count + 1
        fault = names.fault
        if count > MAX_NAME_HEADERS:
            fault = f"{count:,} names before one file"
        name, size, is_sparse = names.name, names.size, names.is_sparse
        if header.kind == b"L":
            name = decode_name(data.partition(b"\0")[0])
        elif header.kind == b"x":
            records = _pax_records(data)
            name = decode_name(records[b"path"]) if b"path" in records else name
            size = _decimal(records[b"size"]) if b"size" in records else size
            is_sparse = any(key.startswith(b"GNU.sparse.") for key in records)
        return _Names(names.start, count, name, size, is_sparse, fault)

    def _skip_empty(self) -> Damage | None:
        """Move behind empty blocks; None where they are the end of a tar."""
        start = self.at
        stop = self._first_byte_after(start)
        length = stop - start
        self.at = stop
        # A writer adds two empty blocks and fills the last record; more is a hole.
        at_most = END_MARK + RECORD - 1
        if stop == self.size:
            if length < END_MARK:
                return Damage(start, stop, f"only {length} empty bytes at the end")
            return None if length <= at_most else Damage(start, stop, f"{length:,} empty bytes")

        is_end = END_MARK <= length <= at_most and stop % RECORD == 0
        if is_end and self._is_header(stop):  # tars that were joined
            return None
        found = self._next_header(stop)
        self.at = self.size if found is None else found
        what = f"{length:,} empty bytes"
        if found is None and length >= END_MARK:
            what = f"{self.size - stop:,} bytes behind the end mark that are no tar"
        return Damage(start, self.at, what)

    def _first_byte_after(self, start: int) -> int:
        """Start of the first block with a byte other than 0, or the size of the file."""
        at = start
        while at < self.size:
            window = self._read(at, min(_WINDOW, self.size - at))
            filled = window.lstrip(b"\0")
            if filled:
                return (at + len(window) - len(filled)) // BLOCK * BLOCK
            at += len(window)
        return self.size

    def _next_header(self, start: int) -> int | None:
        """Place of the next block from `start` on that is a header."""
        at = start
        while at + BLOCK <= self.size:
            window = self._read(at, min(_WINDOW, (self.size - at) // BLOCK * BLOCK))
            blocks = np.frombuffer(window, dtype=np.uint8).reshape(-1, BLOCK)
            digits = blocks[:, 148:154]  # of the checksum, octal; few other blocks have them
            likely = ((digits >= 48) & (digits <= 55) | (digits == 32) | (digits == 0)).all(axis=1)
            likely &= blocks[:, 0] != 0
            for number in np.flatnonzero(likely).tolist():
                if self._is_header(at + number * BLOCK):
                    return at + number * BLOCK
            at += len(window)
        return None

    def _is_header(self, at: int) -> bool:
        try:
            parse_header(self._read(at, BLOCK))
        except BadHeader:
            return False
        return True

    def _read(self, at: int, size: int) -> bytes:
        data = read_range(self.file, at, size)
        if len(data) < size:
            raise OSError(f"the file became shorter than {at + size:,} bytes while it was read")
        return data


def parse_header(block: bytes) -> _Header:
    """Read name, size and kind from a block of 512 bytes.

    Raises:
        BadHeader: its checksum or a number in it is wrong.
    """
    try:
        expected = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        raise BadHeader("no header") from None
    # The checksum's own field counts as eight spaces.
    total = sum(block) - sum(block[148:156]) + 256
    if expected != total:
        negative = 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if expected != total - negative:  # some old writers add signed bytes
            raise BadHeader("a header with a wrong checksum")

    name, kind = block[:100].partition(b"\0")[0], block[156:157]
    prefix = block[345:500].partition(b"\0")[0]
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return _Header(decode_name(name), _number(block[124:136]), kind, block[482] != 0)


def decode_name(name: bytes) -> str:
    """Decode a name: UTF-8, or Latin-1 where it is not, so that each name has a text."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")


def padded(size: int) -> int:
    """Return how many bytes a member of `size` bytes takes in whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A number of a header: octal, or in base 256 where its first bit is set."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise BadHeader("a header with a negative size")
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise BadHeader("a header whose size is no number") from None
    if number < 0:
        raise BadHeader("a header with a negative size")
    return number


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 24:
        raise BadHeader("a header whose size is no number")
    return int(text)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Records "LENGTH KEY=VALUE\\n" of a pax header."""
    records = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        length, space, _ = data[at : at + 21].partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length) <= len(data) - at:
            raise BadHeader("a pax header that cannot be read")
        record = data[at + len(length) + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise BadHeader("a pax header that cannot be read")
        records[key] = value[:-1]
        at += int(length)
    return records
