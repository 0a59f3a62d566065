"""Limits for configurations from strangers: names that this machine knows, and plain values.

A folder of weights or a run folder names its model, text tower and tokenizer. Loaders take more
than names there: folders and hub ids whose Python they run. So a name that comes from a file is one
of those that open_clip lists, and an option is one of those that open_clip's own configurations
have.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clim_models.checkpoints.about import ABOUT_FILE, read_object
from clim_models.checkpoints.load import export_folder
from clim_models.shipped import TINY

# Options of a model_cfg that name something to load, each with its section.
NAMES = {
    "timm_model_name": "vision_cfg",
    "hf_model_name": "text_cfg",
    "hf_tokenizer_name": "text_cfg",
}

# Options that ask to run code. They are dropped, with any value.
DROPPED = frozenset({"trust_remote_code", "code_revision", "auto_map"})

TOKENIZER_OPTIONS = frozenset({"clean", "strip_sep_token", "language"}) | DROPPED

SECTIONS = ("vision_cfg", "text_cfg", "multimodal_cfg")


def check_foreign_name(name: Any, source: str | Path) -> str:
    """Return a model name that comes from a file.

    Args:
        source: the file, for the message.

    Raises:
        ValueError: open_clip does not list the name. Schemes such as "local-dir:" and "hf-hub:" are
            never listed.
    """
    if isinstance(name, str) and (name == TINY or name in open_clip.list_models()):
        return name
    raise ValueError(
        f"{source} names the model {str(name)[:100]!r}, which open_clip does not list and which "
        "may bring code: look at it, and if you trust it, say so with --trust"
    )


def name_of_export(folder: str | Path, *, trusted: bool = False) -> str | None:
    """Return the model name of an export, or of the export inside a run folder.

    None where no file says it. Raises ValueError as `check_foreign_name`, unless `trusted`.
    """
    path = export_folder(Path(folder)) / ABOUT_FILE
    name = read_object(path).get("name")
    if not name or (trusted and isinstance(name, str)):
        return name or None
    return check_foreign_name(name, path)


def check_foreign_config(config: Any, source: str) -> None:
    """Check the model_cfg of a "local-dir:" or "hf-hub:" model.

    Args:
        source: what the user named, for the message.

    Raises:
        ValueError: an option that open_clip does not have, or a name (text tower, tokenizer, timm
            model) that none of its configurations has.
    """
    fix = "look at it, and if you trust it, register it with open_clip.add_model_config(FILE)"
    if not isinstance(config, Mapping):
        raise ValueError(f"{source} has no model_cfg: pass the folder of an open_clip model")

    known = _known_options()
    for section in SECTIONS:
        options = config.get(section, {})
        if not isinstance(options, Mapping):
            raise ValueError(f"{source} has {str(options)[:60]!r} as {section}, no options: {fix}")
        unknown = sorted(set(options) - known[section] - DROPPED)
        if unknown:
            raise ValueError(f"{source} has unknown options {unknown} in {section}: {fix}")

    for option, section in NAMES.items():
        value = config.get(section, {}).get(option)
        is_known = isinstance(value, str) and value in _known_names()[option]
        if value and not is_known:
            raise ValueError(f"{source} names {option} {str(value)[:100]!r}: {fix}")

    tokenizer = config.get("text_cfg", {}).get("tokenizer_kwargs") or {}
    if not isinstance(tokenizer, Mapping):
        raise ValueError(f"{source} has tokenizer options {str(tokenizer)[:60]!r}: {fix}")
    unknown = sorted(map(str, set(tokenizer) - TOKENIZER_OPTIONS))
    if unknown:
        raise ValueError(f"{source} has unknown tokenizer options {unknown}: {fix}")


@lru_cache
def _known_options() -> dict[str, frozenset[str]]:
    """Return the options of each section: of open_clip's classes and of its configurations."""
    found: dict[str, set[str]] = {section: set() for section in SECTIONS}
    found["vision_cfg"] |= {field.name for field in fields(CLIPVisionCfg)}
    found["text_cfg"] |= {field.name for field in fields(CLIPTextCfg)}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        for section in SECTIONS:
            found[section] |= set(config.get(section, {}))
    return {section: frozenset(options) for section, options in found.items()}


def _known_names() -> dict[str, frozenset[str]]:
    """Return the names of timm, and those of text towers and tokenizers of all configurations."""
    found: dict[str, set[str]] = {option: set() for option in NAMES}
    found["timm_model_name"] |= set(timm.list_models())
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        for option, section in NAMES.items():
            value = config.get(section, {}).get(option)
            if value:
                found[option].add(value)
    return {option: frozenset(names) for option, names in found.items()}
