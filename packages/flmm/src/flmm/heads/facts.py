"""Facts in a file of heads, so that it is never loaded into a model of another kind.

Some facts do not follow from the weights: the merge of a phrase's tokens, the prompts of SAM and,
where sizes agree, the LMM and the image encoder of the training. Files of `GroundedLMM.save_heads`
have them in their metadata.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clim_models import UNetHead
from safetensors import SafetensorError, safe_open

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
    return Path(os.path.relpath(path.resolve(), place)).as_posix()


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
        content = json.loads(about.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{about} is no JSON ({fault}): export the run again") from None
    return content if isinstance(content, dict) else {}


def read_facts(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read the facts in a file of heads, see `GroundedLMM.facts`.

    Older files have at most "merge", in the grounding.json next to them. Released F-LMM
    checkpoints, which are all alike (mean, all prompts), and state dicts have none.

    Raises:
        ValueError: there is a fact that this version does not know, or grounding.json is damaged.
    """
    if (
        isinstance(source, Mapping)
        or Path(source).suffix != ".safetensors"
        or not Path(source).is_file()
    ):
        return {}

    path = Path(source)
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except SafetensorError:  # reading the tensors says what is wrong
        return {}
    if not said:
        merge = _read_about(path.with_name(ABOUT_FILE)).get("merge")
        return {} if merge is None else {"merge": merge}

    parts = {"mask_head": HEAD, "prompts": PROMPTS, "presence": PRESENCE, "knows": KNOWS}
    known = {"merge", "lmm", "refiner", "sam_image_encoder", *parts}
    unknown = said.keys() - known
    for part, names in parts.items():
        unknown |= said.get(part, {}).keys() - {*names}
    if unknown:
        raise ValueError(
            f"{path} says {sorted(unknown)}, which this flmm does not know: pip install --upgrade "
            "flmm"
        )
    return said


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
