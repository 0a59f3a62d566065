"""Pickles of plain data, read without executing their content.

A pickle is a program. These are read by an unpickler that knows lists, dicts, tuples, texts, bytes
and numbers and refuses everything that has to be imported, so a file from anywhere can be opened.
"""

import io
import pickle
from typing import Any, NoReturn


class _PlainUnpickler(pickle.Unpickler):
    """Containers, texts and numbers only."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def load_plain_pickle(data: bytes) -> Any:
    """Load a pickle of plain data, also of Python 2, whose byte strings become latin-1 text.

    Raises:
        ValueError: the pickle is damaged, or it holds anything that would have to be imported.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as fault:  # damaged pickles raise nearly anything
        reason = f"{type(fault).__name__}: {fault}"
    raise ValueError(
        f"not a pickle of plain data ({reason}): fetch it again, or convert it to json where you "
        "trust it"
    )
