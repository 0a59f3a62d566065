"""Trained heads on the Hugging Face hub, and back."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from clim_models.checkpoints import check_values
from clim_models.hub import HubClient, fetch_folder, upload_folder

from flmm.heads.facts import ABOUT_FILE, HEADS_FILE, read_facts, source_of
from flmm.heads.files import mask_head_options, open_heads

HEAD = """---
library_name: flmm
pipeline_tag: image-segmentation
tags:
- flmm
- grounding
- referring-segmentation
---
"""


def push_heads_to_hub(
    source: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    client: HubClient | None = None,
) -> str:
    """Upload the heads of a training; the frozen LMM and SAM stay where they are.

    Args:
        source: run folder of `flmm train`, its `model`, or a heads.safetensors.
        repo_id: OWNER/NAME; it is made if it is not there.
        private: only its owner sees a repository that is made here.
        token: None takes the one of `hf auth login`.
        client: None is `huggingface_hub.HfApi`.

    Returns:
        Address of the repository.

    Raises:
        FileNotFoundError: there are no heads.
        ValueError: the heads are damaged, or were trained with an LMM or SAM in a folder of this
            machine, which others do not have.
    """
    heads = _heads_in(Path(source))
    tensors = open_heads(heads)
    mask_head_options(tensors, read_facts(heads), name=str(heads))
    check_values(tensors, tensors, source=heads)
    about = heads.with_name(ABOUT_FILE)
    parts = {part: source_of(about, part) for part in ("lmm", "sam")}
    for part, name in parts.items():
        if name is not None and (Path(name).is_absolute() or Path(name).exists()):
            raise ValueError(
                f"{about} names the {part.upper()} {name}, a folder of this machine: write its hub "
                f'id there ("{part}": "OWNER/NAME"), so that others find it'
            )

    with TemporaryDirectory() as staging:
        folder = Path(staging)
        shutil.copy(heads, folder / HEADS_FILE)
        if about.is_file():
            shutil.copy(about, folder / ABOUT_FILE)
        card = _card(repo_id, heads, parts)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return upload_folder(folder, repo_id, private=private, token=token, client=client)


def fetch_heads(source: str | Path, *, revision: str | None = None) -> Path:
    """Return the file of heads in a repository of the hub, or in a folder here.

    `load_grounded(..., heads=fetch_heads("OWNER/NAME"))` loads them; grounding.json next to the
    file names the LMM and the SAM they were trained with.

    Raises:
        FileNotFoundError: there are none.
    """
    return _heads_in(fetch_folder(source, revision=revision))


def _heads_in(source: Path) -> Path:
    """Return the file of heads of a run folder, an export, or the file itself.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in (source, source / HEADS_FILE, source / "model" / HEADS_FILE):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{source} has no {HEADS_FILE}: pass the run folder of `flmm train` "
        "(`flmm train export RUN` finishes a stopped one)"
    )


def _card(repo_id: str, heads: Path, parts: dict[str, str | None]) -> str:
    """Return the page of the heads: their LMM and SAM, and the code that loads them."""
    lmm, sam = parts["lmm"] or "LMM", parts["sam"] or "SAM"
    lines = [f"# {repo_id.partition('/')[2]}", ""]
    lines += [f"Heads that let a frozen {lmm} point at what it says (F-LMM, arXiv 2406.05821).", ""]
    lines += ["```python", "import flmm", ""]
    lines += [f'heads = flmm.fetch_heads("{repo_id}")']
    lines += [f'model = flmm.load_grounded("{lmm}", sam="{sam}", heads=heads)', "```", ""]
    lines += ["| | |", "|---|---|"]
    for name, value in read_facts(heads).items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"| {name} | {text} |")
    return HEAD + "\n".join(lines) + "\n"
