"""Folders from the hub that are half there, damaged, or something else."""

import json
import pickle

import huggingface_hub
import pytest
from clim_models import from_pretrained
from clim_models.hub import fetch_folder
from huggingface_hub.errors import RevisionNotFoundError

ABOUT = {"name": "ViT-B-32"}


def write_about(folder, **more):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**ABOUT, **more}))
    return folder


def test_half_a_download_and_pickles_are_told_from_weights(tmp_path):
    folder = write_about(tmp_path / "half")
    with pytest.raises(FileNotFoundError, match=r"neither open_clip_model.* fetch or export it"):
        from_pretrained(folder)
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(FileNotFoundError, match="pickled weights are never read"):
        from_pretrained(folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec")
    with pytest.raises(ValueError, match="is truncated or damaged"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"eval_px": "big"}, "has eval_px='big'"),
        ({"name": ["ViT-B-32"]}, "open_clip does not list"),
        ({"name": "local-dir:other"}, "open_clip does not list"),
    ],
)
def test_a_damaged_config_is_refused_before_weights_are_read(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        from_pretrained(write_about(tmp_path / "model", **more))


def test_a_file_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is a file: pass its folder"):
        fetch_folder("run/model.safetensors")


def test_no_pickle_is_fetched_and_a_wrong_revision_is_one_line(tmp_path, monkeypatch):
    asked = []

    def fetch(name, *, revision, allow_patterns):
        asked.append((name, allow_patterns))
        if revision is not None:
            raise RevisionNotFoundError.__new__(RevisionNotFoundError)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr("clim_models.hub_compat.hub_answers", lambda: True)
    assert fetch_folder("me/mine") == tmp_path
    name, patterns = asked[0]
    assert name == "me/mine"
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in patterns)
    with pytest.raises(FileNotFoundError, match="has no revision 'v9'"):
        fetch_folder("me/mine", revision="v9")
