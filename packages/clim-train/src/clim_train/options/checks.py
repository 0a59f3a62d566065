"""How a configuration refuses a value: option, value and legal values in one sentence."""

import typing
from dataclasses import fields
from typing import Any


def reject(option: str, value: Any, legal: str) -> typing.NoReturn:
    """Raise ValueError for `option` ("section.name"), ending with what to use instead."""
    raise ValueError(f"{option}={value!r} is not possible: use {legal}")


def check_choice(owner: Any, section: str, name: str) -> None:
    """Raise ValueError unless the field has one of the values of its `Literal` type."""
    choices = typing.get_args(typing.get_type_hints(type(owner))[name])
    value = getattr(owner, name)
    if value not in choices:
        reject(f"{section}.{name}", value, "one of " + ", ".join(repr(c) for c in choices))


def check_at_least(owner: Any, section: str, **minima: float) -> None:
    """Raise ValueError where a field that is not None is below its minimum."""
    for name, minimum in minima.items():
        value = getattr(owner, name)
        if value is not None and value < minimum:
            reject(f"{section}.{name}", value, f"a value of at least {minimum}")


def check_default(owner: Any, section: str, names: tuple[str, ...], legal: str) -> None:
    """Raise ValueError for an option that was set where it has no effect."""
    defaults = {option.name: option.default for option in fields(owner)}
    for name in names:
        if getattr(owner, name) != defaults[name]:
            reject(f"{section}.{name}", getattr(owner, name), legal)
