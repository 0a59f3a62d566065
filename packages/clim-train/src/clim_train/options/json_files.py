"""Nested dataclasses from plain JSON values; every mistake is named by its place."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

# Where one of several dataclasses may stand, one of these fields says which: a Literal of one
# value.
_DISCRIMINATORS = ("name", "kind")

Variants = Mapping[type, Sequence[type]]
"""Base class that a field is declared with -> the classes that may stand there."""


def build(kind: type, values: Any, where: str, variants: Variants | None = None) -> Any:
    """Make a dataclass from a plain dict.

    Lists become the declared tuples, and JSON's text keys become integers. Where a field may be one
    of several dataclasses, `name` or `kind` in its values chooses. Files that were written before
    there was a choice have neither: there the first is taken.

    Raises ValueError for unknown options and values of another type.
    """
    hints = _fields(kind)
    if not isinstance(values, dict) or (unknown := sorted(set(values) - set(hints))):
        given = unknown if isinstance(values, dict) else values
        raise ValueError(
            f"{where} has unknown options {given}: the known ones are {', '.join(hints)}"
        )

    made = {}
    for name, value in values.items():
        made[name] = _convert(hints[name], value, f"{where}.{name}", variants or {})
    return kind(**made)


def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _convert(hint: Any, value: Any, where: str, variants: Variants) -> Any:
    if isinstance(hint, type) and hint in variants:
        return _convert_variant(variants[hint], value, where, variants)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where, variants)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _convert_optional(hint, value, where, variants)

    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple(value)
    if origin is dict:
        return {int(key): count for key, count in value.items()}

    # JSON does not tell 1 from 1.0; True is an int in Python, but not here.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(hint, type):
        is_right = isinstance(value, hint) and not (hint is int and value is True)
        if not is_right:
            raise ValueError(
                f"{where}={value!r} is not possible: use a value of type {hint.__name__}"
            )
    return value


def _convert_optional(hint: Any, value: Any, where: str, variants: Variants) -> Any:
    if value is None:
        return None
    inner = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return _convert(inner, value, where, variants)


def _convert_variant(choices: Sequence[type], value: Any, where: str, variants: Variants) -> Any:
    option = next(name for name in _DISCRIMINATORS if name in _fields(choices[0]))
    kinds = {typing.get_args(_fields(kind)[option])[0]: kind for kind in choices}

    first = next(iter(kinds))
    chosen = value.get(option, first) if isinstance(value, dict) else first
    if chosen not in kinds:
        legal = ", ".join(repr(name) for name in kinds)
        raise ValueError(f"{where}.{option}={chosen!r} is not possible: use one of {legal}")
    return build(kinds[chosen], value, where, variants)


class JsonConfig:
    """Base of frozen dataclasses of options that are written to a run folder and read back."""

    @classmethod
    def variants(cls) -> Variants:
        """Return the classes that may stand where a field is declared by their base class."""
        return {}

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        # mypy cannot say that subclasses are dataclasses.
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Raises ValueError for unknown, missing or illegal options."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"the configuration is not JSON ({error}): use the config.json of a run folder"
            ) from error
        return build(cls, values, "config", cls.variants())

    @classmethod
    def load(cls, run_folder: str | Path) -> Self:
        """Read the configuration of a run folder.

        Raises FileNotFoundError where there is none, ValueError as `from_json`.

        Its section `run`, if it has one, names the folder that was read: the folder in the file is
        the one of the start, from which the run may have been copied or moved.
        """
        path = Path(run_folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: give the folder of a run that was started before"
            )
        try:
            config = cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not hasattr(config, "run"):
            return config
        run = dataclasses.replace(config.run, folder=str(run_folder))
        return dataclasses.replace(config, run=run)  # type: ignore[type-var]
