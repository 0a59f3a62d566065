"""Requests of browsers: bodies of limited size that arrive in time, and fields of JSON."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.requests import Request

from flmm.web.line import Refused
from flmm.web.upload import MAX_BYTES

MAX_JSON_BYTES = 1 << 20
# A body has a minute, and beyond that as long as it arrives at this rate.
BODY_S = 60.0
LEAST_BYTES_PER_S = 10_000
MOST_UPLOADS = 8

# Kinds of fields.
TEXT = "a text"
NUMBER = "a whole number"
CHOICE = "true or false"
TEXTS = "a list of texts"
PAIRS = "a list of pairs of texts"
SPAN = "a list of two whole numbers"


class Uploads:
    """Uploads of pictures; only a few at a time, since each is in memory."""

    def __init__(self) -> None:
        self._running = 0

    async def read(self, request: Request) -> bytes:
        """Read the bytes of a picture's file.

        Raises:
            Refused: too many bytes, too slow, too many at a time, or another content type.
        """
        # Pages elsewhere cannot send these types, nor JSON, without asking the server first, and it
        # does not agree.
        check_type(request, "image/", "application/octet-stream")
        with self._place():
            return await read_body(request, MAX_BYTES)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= MOST_UPLOADS:
            raise Refused(503, f"{self._running} pictures are being sent already: try again")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


# Fields that say which masks are wanted; pages of one grounder send none.
CHOSEN = ("grounder", "outlines")


async def read_fields(request: Request, *, chosen: bool = False, **kinds: str) -> dict[str, Any]:
    """Read the fields of a JSON request: all those named, of these kinds, and no others.

    Args:
        chosen: `CHOSEN` may be there, too.

    Raises:
        Refused: the request has other content.
    """
    check_type(request, "application/json")
    data = await read_body(request, MAX_JSON_BYTES)
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = None
    further = {
        name: TEXT for name in CHOSEN if chosen and isinstance(given, dict) and name in given
    }
    if not isinstance(given, dict) or set(given) != {*kinds, *further}:
        raise Refused(400, f"send a JSON object with {', '.join(kinds)}")
    for name, kind in {**kinds, **further}.items():
        if not _is_of_kind(given[name], kind):
            raise Refused(400, f"{name} must be {kind}")
    _check_letters(given)
    return given


def check_type(request: Request, *types: str) -> None:
    """Raise Refused for a body of another content type."""
    if not request.headers.get("content-type", "").startswith(types):
        raise Refused(415, f"send this with a content type of {' or '.join(types)}")


async def read_body(request: Request, most: int) -> bytes:
    """Read a body.

    Raises:
        Refused: it has more than `most` bytes, or does not arrive in time.
    """
    begin = time.monotonic()
    data = bytearray()
    parts = request.stream()
    while True:
        allowed = max(BODY_S, len(data) / LEAST_BYTES_PER_S)
        left = begin + allowed - time.monotonic()
        try:
            data += await asyncio.wait_for(_next_part(parts), max(left, 0.001))
        except StopAsyncIteration:
            return bytes(data)
        except TimeoutError:
            raise Refused(408, f"this took longer than {allowed:.0f} s to arrive") from None
        if len(data) > most:
            raise Refused(413, f"this has more than {most >> 20} MB: make it smaller")


async def _next_part(parts: AsyncIterator[bytes]) -> bytes:
    return await anext(parts)


def _is_of_kind(value: Any, kind: str) -> bool:
    if kind == TEXT:
        return isinstance(value, str)
    if kind in (NUMBER, CHOICE):
        return type(value) is (int if kind == NUMBER else bool)
    if not isinstance(value, list):
        return False
    if kind == SPAN:
        return len(value) == 2 and all(type(one) is int for one in value)
    if kind == TEXTS:
        return all(isinstance(one, str) for one in value)
    pairs = (isinstance(one, list) and len(one) == 2 for one in value)
    return all(pairs) and all(isinstance(text, str) for pair in value for text in pair)


def _check_letters(given: Mapping[str, Any]) -> None:
    """Raise Refused where a text has half a letter (a lone surrogate), which no encoding has."""
    for name, value in given.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refused(400, f"{name} holds letters that are no text: type it anew") from None
