"""Facts in a file of heads, so that it is never loaded into a model of another kind.

Some facts do not follow from the weights: the merge of a phrase's tokens, the prompts of SAM and,
where sizes agree, the LMM and the image encoder of the training. Files of `GroundedLMM.save_heads`
have them in their metadata.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clim_models import UNetHead
from clim_models.checkpoints import read_metadata

from flmm.adapters.frozen import FrozenLMM
from flmm.refiners.refiner import NO_REFINER, TrainableRefiner

KEY = "flmm"  # of the metadata
# Next to heads.safetensors in the export of a training: the names of LMM and SAM.
ABOUT_FILE = "grounding.json"
HEADS_FILE = "heads.safetensors"
PROMPTS = ("use_text", "use_mask", "use_box", "multimask")
HEAD = ("base", "stages", "normalize_input", "upsample_input")
PRESENCE = ("inputs", "hidden", "threshold")
# What heads of a demonstration know: in words, and the nouns.
KNOWS = ("what", "nouns")


def frozen_parts(lmm: FrozenLMM, sam: TrainableRefiner) -> dict[str, str]:
    """Return the kinds of LMM and refiner, and the size of the refiner's image encoder (heads for
    ViT-L also fit a SAM with a ViT-B).

    The kind "sam" is not named: files that name no kind have it.
    """
    parts = {"lmm": f"{lmm.config.model_type} on {lmm.language_config.model_type}"}
    if sam.kind != "sam":
        parts["refiner"] = sam.kind
    encoder = sam.image_encoder
    if encoder is not None and (size := sum(p.numel() for p in encoder.parameters())):
        parts["sam_image_encoder"] = f"{size:,} parameters"
    return parts


def trained_parts(mask_head: UNetHead, sam: TrainableRefiner) -> dict[str, dict[str, Any]]:
    """Return the options that a mask head and a refiner are built with: {"mask_head": ...,
    "prompts": ...}."""
    head = {
        "base": mask_head.predict.weight.shape[1],
        "stages": len(mask_head.encoder),
        "normalize_input": mask_head.normalize_input,
        "upsample_input": mask_head.upsample_input,
    }
    prompts = sam.facts()
    return {"mask_head": head, **({"prompts": prompts} if prompts else {})}


def portable_source(name: str, folder: Path) -> str:
    """Return the name of an LMM or SAM as grounding.json in RUN/model has it.

    A path below the folder that holds the run becomes relative to `folder`, so that both can be
    moved together. Other paths and hub ids stay.
    """
    path = Path(name)
    if not path.is_absolute():
        return name
    place = folder.resolve()
    together = place.parent.parent
    if together == Path(together.anchor) or not path.resolve().is_relative_to(together):
        return name
    relative = Path(os.path.relpath(path.resolve(), place)).as_posix()
    return relative if relative.startswith("..") else f"./{relative}"  # "lmm" would be of the hub


def source_of(about: Path, part: str) -> str | None:
    """Return the "lmm" or "sam" that a grounding.json names, paths as absolute ones.

    None if there is no such file, or it does not name the part.

    Raises:
        ValueError: the file is damaged.
    """
    name = _read_about(about).get(part)
    if not isinstance(name, str) or not name:
        return None
    if name.split("/")[0] in (".", ".."):
        return os.path.normpath(about.resolve().parent / name)
    return name


def _read_about(about: Path) -> dict[str, Any]:
    """Read a grounding.json; nothing where there is none."""
    if not about.is_file():
        return {}
    try:
        content = json.loads(about.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{about} is no JSON ({fault}): export the run again") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{about} holds no object, but {str(content)[:60]!r}: export the run again"
        )
    return content


def read_facts(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read the facts in a file of heads, see `GroundedLMM.facts`.

    Older files have at most "merge", in the grounding.json next to them. Released F-LMM
    checkpoints, which are all alike (mean, all prompts), and state dicts have none.

    Raises:
        ValueError: the facts are damaged, there is one that this version does not know, or
            grounding.json is damaged.
    """
    if (
        isinstance(source, Mapping)
        or Path(source).suffix != ".safetensors"
        or not Path(source).is_file()
    ):
        return {}

    path = Path(source)
    said = _facts_in(read_metadata(path), path)
    if not said:
        merge = _read_about(path.with_name(ABOUT_FILE)).get("merge")
        return {} if merge is None else {"merge": merge}

    parts = {"mask_head": HEAD, "prompts": PROMPTS, "presence": PRESENCE, "knows": KNOWS}
    known = {"merge", "lmm", "refiner", "sam_image_encoder", *parts}
    unknown = said.keys() - known
    for part, names in parts.items():
        facts = said.get(part, {})
        if not isinstance(facts, Mapping):
            raise ValueError(_damaged(path, f"{part} is {str(facts)[:60]!r}"))
        unknown |= facts.keys() - {*names}
    if unknown:
        raise ValueError(
            f"{path} says {sorted(unknown)}, which this flmm does not know: it needs a later "
            "release"
        )
    _check_kinds(said, path)
    return said


def _facts_in(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Parse the facts in the header of a file; nothing where it has none."""
    try:
        said = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError) as fault:
        raise ValueError(_damaged(path, str(fault))) from None
    if not isinstance(said, dict):
        raise ValueError(_damaged(path, f"they are {str(said)[:60]!r}"))
    return said


def _check_kinds(said: Mapping[str, Any], path: Path) -> None:
    """Refuse facts whose values are of another kind than `GroundedLMM.facts` writes.

    Raises:
        ValueError: see above.
    """
    for part, fields in FIELDS.items():
        facts = said.get(part, {})
        for name, is_right in fields.items():
            if name in facts and not is_right(facts[name]):
                raise ValueError(_damaged(path, f"{part} {name} is {str(facts[name])[:60]!r}"))
    if "knows" in said and {*KNOWS} - said["knows"].keys():
        raise ValueError(_damaged(path, "knows lacks what or nouns"))


def _damaged(path: Path, reason: str) -> str:
    return f"the facts in the header of {path} are damaged ({reason}): take another copy of it"


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_SIZE


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


# Far above every width, and every side of maps.
LARGEST_SIZE, LARGEST_SIDE = 1 << 20, 1 << 12
# What the values of facts must be.
FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "mask_head": {
        "base": _is_size,
        "stages": _is_size,
        "normalize_input": lambda value: isinstance(value, bool),
        "upsample_input": lambda value: (
            value is None or (_is_size(value) and value <= LARGEST_SIDE)
        ),
    },
    "prompts": {name: lambda value: isinstance(value, bool) for name in PROMPTS},
    "presence": {"inputs": _is_size, "hidden": _is_size, "threshold": _is_share},
    "knows": {"what": lambda value: isinstance(value, str), "nouns": _is_texts},
}


def unknown_phrases(knows: Mapping[str, Any], phrases: Sequence[str]) -> list[str]:
    """Return the phrases without a noun that heads know, singular or plural.

    Args:
        knows: {"what": in words, "nouns": list}, from the facts of the heads.
    """
    forms = {form for noun in knows["nouns"] for form in (noun, f"{noun}s", f"{noun}es")}
    return [phrase for phrase in phrases if not forms.intersection(phrase.lower().split())]


def chosen_merge(facts: Mapping[str, Any], merge: str | None, *, name: str) -> str:
    """Return the merge of the heads. If their facts lack it, it is `merge`, or else "mean".

    Raises:
        ValueError: the heads were trained with another one than `merge`.
    """
    said = facts.get("merge")
    if None not in (said, merge) and said != merge:
        raise ValueError(
            f"{name} was trained with merge={said!r}, not {merge!r}: use merge={said!r} "
            f"(--model.merge {said})"
        )
    return said or merge or "mean"


def check_facts(own: Mapping[str, Any], said: Mapping[str, Any], *, name: str) -> None:
    """Raise ValueError if the facts of a file of heads differ from those of the model to load it
    into."""
    ours, theirs = {"refiner": "sam", **_flat(own)}, _flat(said)
    if theirs:
        theirs = {"refiner": "sam", **theirs}
    if NO_REFINER in (ours["refiner"], theirs.get("refiner")):
        # It reads no weights that were trained with a SAM; `read_heads` refuses the opposite.
        theirs.pop("refiner", None)
    differing = [key for key in theirs if key in ours and ours[key] != theirs[key]]
    wrong = [f"  {key}: {theirs[key]} there, {ours[key]} here" for key in differing]
    if wrong:
        raise ValueError(
            "\n".join(
                [
                    f"the heads {name} were trained for another model:",
                    *wrong,
                    "Use the LMM and SAM they were trained with; flmm.load_grounded(..., "
                    "heads=FILE) builds the rest",
                ]
            )
        )


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat.update(
            {f"{key} {name}": one for name, one in value.items()}
            if isinstance(value, Mapping)
            else {key: value}
        )
    return flat
