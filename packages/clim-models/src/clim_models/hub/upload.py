"""A trained model to the hub."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from open_clip.constants import HF_SAFE_WEIGHTS_NAME

from clim_models.checkpoints.about import ABOUT_FILE, read_object
from clim_models.checkpoints.load import WEIGHTS_FILE, export_folder
from clim_models.checkpoints.tensor_files import check_values, read_tensors
from clim_models.export import save_model
from clim_models.hub.card import model_card
from clim_models.region_model import RegionModel


class HubClient(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any: ...


def push_to_hub(
    source: RegionModel | str | Path,
    repo_id: str,
    *,
    report: str | Path | None = None,
    private: bool = True,
    token: str | None = None,
    client: HubClient | None = None,
) -> str:
    """Upload a model so that `open_clip.create_model("hf-hub:OWNER/NAME")` loads it.

    Args:
        source: a run folder, an export, or a model that `create_model` built.
        repo_id: OWNER/NAME; it is made if it is not there.
        report: report.json of `clim-eval`, whose figures go to the model card.
        private: only its owner sees a repository that is made here.
        token: None takes the one of `hf auth login`.
        client: None is `huggingface_hub.HfApi`.

    Returns:
        Address of the repository.

    Raises:
        FileNotFoundError: no export in the folder, or no report.
        ValueError: a damaged export, one with links, a report without metrics, or a model without
            configuration.
    """
    with TemporaryDirectory() as staging:
        folder = Path(staging) / "model"
        run: dict[str, Any] = {}
        if isinstance(source, RegionModel):
            save_model(source, folder)
        else:
            export = export_folder(Path(source))
            _check_export(export)
            shutil.copytree(export, folder)
            if export != Path(source):
                run = read_object(Path(source) / ABOUT_FILE)

        # open_clip asks the hub for this name.
        shutil.move(folder / WEIGHTS_FILE, folder / HF_SAFE_WEIGHTS_NAME)
        metrics = {} if report is None else _metrics_of(Path(report))
        card = model_card(repo_id, read_object(folder / ABOUT_FILE), run, metrics)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return upload_folder(folder, repo_id, private=private, token=token, client=client)


def upload_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    token: str | None = None,
    client: HubClient | None = None,
) -> str:
    """Upload the files of a folder to a repository of models, which is made if it is not there.

    Returns:
        Address of the repository.

    Raises:
        ValueError: `repo_id` is no OWNER/NAME, or has signs that the hub does not take.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"repo_id={repo_id!r}: pass OWNER/NAME")
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo_id)
    if client is None:
        from huggingface_hub import HfApi

        client = HfApi(token=token)
    address = client.create_repo(repo_id, private=private, exist_ok=True)
    client.upload_folder(
        repo_id=repo_id, folder_path=str(folder), commit_message="Upload a model of clim"
    )
    return str(address)


def _metrics_of(report: Path) -> Mapping[str, Any]:
    """Return the figures of a report of `clim-eval`."""
    if not report.is_file():
        raise FileNotFoundError(f"no report {report}: pass report.json of `clim-eval`")
    metrics = read_object(report).get("metrics")
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"{report} holds no metrics: pass report.json of `clim-eval`")
    return metrics


def _check_export(folder: Path) -> None:
    """Refuse a folder without a whole export, and links: what they lead to would be published."""
    if not (folder / ABOUT_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no exported model: pass the folder of a finished run "
            "(`clim-train export RUN` finishes a stopped one)"
        )
    linked = [path for path in sorted(folder.rglob("*")) if path.is_symlink()]
    if linked:
        raise ValueError(
            f"{linked[0]} is a link, and what it leads to would be published: remove it, or "
            "replace it with a file"
        )
    tensors = read_tensors(folder / WEIGHTS_FILE)
    check_values(tensors, tensors, source=folder / WEIGHTS_FILE)
