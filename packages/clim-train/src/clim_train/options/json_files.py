"""Nested dataclasses from plain JSON values, every mistake named by its place."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Self

# A union of dataclasses says in one of these fields, a Literal with a single value, which of them
# is meant.
_DISCRIMINATORS = ("name", "kind")


def build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a plain dict, with lists turned into the declared tuples and JSON's text
    keys into integers.

    Where a field may be one of several dataclasses, `name` or `kind` in its values chooses; the
    first is taken where that is missing, as in files that were written before there were others.

    Raises ValueError for unknown options and values of another type.
    """
    hints = _fields(kind)
    if not isinstance(values, dict) or (unknown := sorted(set(values) - set(hints))):
        given = unknown if isinstance(values, dict) else values
        raise ValueError(
            f"{where} has unknown options {given}: the known ones are {', '.join(hints)}"
        )
    return kind(
        **{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    )


def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _convert_union(hint, value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple(value)
    if origin is dict:
        return {int(key): count for key, count in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (
        origin is None
        and isinstance(hint, type)
        and (not isinstance(value, hint) or (hint is int and value is True))
    ):
        raise ValueError(f"{where}={value!r} is not possible: use a value of type {hint.__name__}")
    return value


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if not dataclasses.is_dataclass(inner[0]):
        return None if value is None else _convert(inner[0], value, where)
    option = next(name for name in _DISCRIMINATORS if name in _fields(inner[0]))
    kinds = {typing.get_args(_fields(kind)[option])[0]: kind for kind in inner}
    chosen = value.get(option, next(iter(kinds))) if isinstance(value, dict) else next(iter(kinds))
    if chosen not in kinds:
        legal = ", ".join(repr(name) for name in kinds)
        raise ValueError(f"{where}.{option}={chosen!r} is not possible: use one of {legal}")
    return build(kinds[chosen], value, where)


class JsonConfig:
    """What frozen dataclasses of options inherit to be written to a run folder and read back."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote. Raises ValueError for unknown, missing or illegal options."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"the configuration is not JSON ({error}): use the config.json of a run folder"
            ) from error
        return build(cls, values, "config")

    @classmethod
    def load(cls, run_folder: str | Path) -> Self:
        """The configuration of a run folder. Raises FileNotFoundError where there is none."""
        path = Path(run_folder) / "config.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: give the folder of a run that was started before"
            )
        return cls.from_json(path.read_text())
