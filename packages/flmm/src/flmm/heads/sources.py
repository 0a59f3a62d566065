"""The file of trained heads, and the LMM and SAM of their training."""

from pathlib import Path

from flmm.heads.facts import ABOUT_FILE, source_of
from flmm.hub import check_foreign_source
from flmm.refiners.refiner import NO_REFINER


def heads_in(checkpoint: Path) -> Path:
    """Return the file of heads: itself, or in the folder of a training (RUN or RUN/model).

    Raises:
        FileNotFoundError: the folder holds none.
    """
    if not checkpoint.is_dir():
        return checkpoint
    tried = [checkpoint / "heads.safetensors", checkpoint / "model" / "heads.safetensors"]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no heads.safetensors in {checkpoint} or its model folder: pass a training's folder"
        )
    return found


def trained_with(heads: Path, part: str, *, flag: str = "--") -> str:
    """Return the "lmm" or "sam" that the training next to this file used.

    Args:
        flag: how the user names a part: "--" on a command line, "" in Python.

    Raises:
        ValueError: no file names it, or it is a model of the hub that was never used here.
        FileNotFoundError: it is a folder or file that does not exist any more.
    """
    about = heads.with_name(ABOUT_FILE)
    named = source_of(about, part)
    if not named:
        none = f"--refiner {NO_REFINER}" if flag else f'sam="{NO_REFINER}"'
        without = f" ({none} draws coarse masks without one)"
        raise ValueError(
            f"nothing next to {heads} says which {part.upper()} it was trained with: pass "
            f"{flag}{part}{without if part == 'sam' else ''}"
        )
    if part == "sam" and named == NO_REFINER:
        return named
    if Path(named).is_absolute() and not Path(named).exists():
        raise FileNotFoundError(
            f"{about} names the {part.upper()} {named}, which is not there: pass {flag}{part} with "
            f"its place ({flag}lmm and {flag}sam, where both were moved)"
        )
    return check_foreign_source(named, about, fix=f"pass {flag}{part} {named}")
