"""Signatures of all exported names, as text that does not depend on where things are defined."""

import inspect
import re
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from house import access
from numpy.typing import ArrayLike

# Dotted names keep their last part, and addresses of objects go: a move changes neither.
DOTTED = re.compile(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)")
# numpy 2.5 gave this type a name; before, a signature spells out what it consists of.
ARRAY_LIKE = inspect.formatannotation(ArrayLike)
# Python 3.11 writes Unpack[Keywords] in its own way.
UNPACK = re.compile(r"\*<class '(\w+)'>")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# A path within a value; of it, only the last part does not depend on where the checkout lies.
PATH = re.compile(r"Path\('[^']*?([^'/]*)'\)")
LAST_PART = r"Path('\1')"


def collect() -> dict[str, dict[str, str]]:
    """Return the description of every exported name, by package and name."""
    return {package: exported(package) for package in access.PACKAGES}


def exported(package: str) -> dict[str, str]:
    module = import_module(package)
    names = [name for name in module.__all__ if name != "__version__"]
    return {name: describe(getattr(module, name)) for name in sorted(names)}


def describe(value: Any) -> str:
    """Return `class(...)`, `function(...)`, `enum(...)`, or the value of a constant."""
    if isinstance(value, Path):
        # Where the checkout lies is no part of a signature.
        return f"Path {value.name}"
    if not callable(value):
        return f"{type(value).__name__} {PATH.sub(LAST_PART, repr(value))}"
    if inspect.isclass(value) and issubclass(value, Enum):
        # Each Python has another signature for enumerations.
        return f"enum({', '.join(value.__members__)})"
    try:
        signature = str(inspect.signature(value))
    except ValueError:
        signature = "(...)"
    signature = signature.replace(ARRAY_LIKE, "ArrayLike")
    kind = "class" if inspect.isclass(value) else "function"
    return kind + UNPACK.sub(r"Unpack[\1]", ADDRESS.sub("", DOTTED.sub(r"\1", signature)))
