"""A trained model to the hub."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from open_clip.constants import HF_SAFE_WEIGHTS_NAME

from clim_models.checkpoints.load import WEIGHTS_FILE, export_folder
from clim_models.export import save_model
from clim_models.hub.card import model_card, read_json
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
        FileNotFoundError, ValueError: no export in the folder, or a model without configuration.
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
                run = read_json(Path(source) / "config.json")

        # open_clip asks the hub for this name.
        shutil.move(folder / WEIGHTS_FILE, folder / HF_SAFE_WEIGHTS_NAME)
        metrics = read_json(Path(report)).get("metrics", {}) if report is not None else {}
        if report is not None and not metrics:
            raise ValueError(f"{report} holds no metrics: pass report.json of `clim-eval`")
        card = model_card(repo_id, read_json(folder / "config.json"), run, metrics)
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
        ValueError: `repo_id` is no OWNER/NAME.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"repo_id={repo_id!r}: pass OWNER/NAME")
    if client is None:
        from huggingface_hub import HfApi

        client = HfApi(token=token)
    address = client.create_repo(repo_id, private=private, exist_ok=True)
    client.upload_folder(
        repo_id=repo_id, folder_path=str(folder), commit_message="Upload a model of clim"
    )
    return str(address)


def _check_export(folder: Path) -> None:
    """Refuse a folder without a whole export."""
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no exported model: pass the folder of a finished run "
            "(`clim-train export RUN` finishes a stopped one)"
        )
