"""Signatures of all exported names, as text that does not depend on where things are defined."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from house import access

# Dotted names keep their last part, and addresses of objects go: a move changes neither.
DOTTED = re.compile(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def collect() -> dict[str, dict[str, str]]:
    """Return the description of every exported name, by package and name."""
    return {package: exported(package) for package in access.PACKAGES}


def exported(package: str) -> dict[str, str]:
    module = import_module(package)
    names = [name for name in module.__all__ if name != "__version__"]
    return {name: describe(getattr(module, name)) for name in sorted(names)}


def describe(value: Any) -> str:
    """Return `class(...)`, `function(...)`, or the value of a constant."""
    if isinstance(value, Path):
        # Where the checkout lies is no part of a signature.
        return f"Path {value.name}"
    if not callable(value):
        return f"{type(value).__name__} {value!r}"
    try:
        signature = str(inspect.signature(value))
    except ValueError:
        signature = "(...)"
    kind = "class" if inspect.isclass(value) else "function"
    return kind + ADDRESS.sub("", DOTTED.sub(r"\1", signature))
