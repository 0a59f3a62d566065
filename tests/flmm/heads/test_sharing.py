"""Heads go to a stubbed hub and come back."""

import json
import shutil

import pytest
import torch
from flmm import fetch_heads, push_heads_to_hub
from safetensors.torch import load_file, save_file


class Hub:
    """Keeps what is uploaded in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def create_repo(self, repo_id, *, private, exist_ok):
        assert private
        assert exist_ok
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    facts = {"merge": "mean", "lmm": "llava on llama", "mask_head": {"base": 64, "stages": 4}}
    weights = {"mask_head.predict.weight": torch.ones(1, 64, 1, 1)}
    for stage in range(4):
        weights[f"mask_head.encoder.{stage}.0.0.weight"] = torch.ones(64, 8, 1, 1)
    save_file(weights, folder / "heads.safetensors", metadata={"flmm": json.dumps(facts)})
    about = {"lmm": "llava-hf/llava-1.5-7b-hf", "sam": "facebook/sam-vit-large"}
    (folder / "grounding.json").write_text(json.dumps(about))
    return tmp_path / "run"


def test_heads_come_back_with_the_names_of_lmm_and_sam(run, tmp_path):
    assert push_heads_to_hub(run, "me/heads", client=Hub(tmp_path)) == "https://hub/me/heads"

    found = fetch_heads(tmp_path / "me" / "heads")
    weights = load_file(found)
    assert torch.equal(weights["mask_head.predict.weight"], torch.ones(1, 64, 1, 1))
    about = json.loads(found.with_name("grounding.json").read_text())
    assert about["sam"] == "facebook/sam-vit-large"
    card = found.with_name("README.md").read_text()
    assert 'flmm.load_grounded("llava-hf/llava-1.5-7b-hf", sam="facebook/sam-vit-large"' in card
    assert "| mask_head | base 64, stages 4 |" in card


def test_folders_of_this_machine_are_not_published(run, tmp_path):
    about = run / "model" / "grounding.json"
    about.write_text(json.dumps({"lmm": "/data/llava", "sam": "facebook/sam-vit-large"}))
    with pytest.raises(ValueError, match="write its hub id there"):
        push_heads_to_hub(run, "me/heads", client=Hub(tmp_path))
    assert not (tmp_path / "me").exists()


def test_a_folder_without_heads_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="flmm train export RUN"):
        fetch_heads(tmp_path)


def test_damaged_heads_are_not_published(run, tmp_path):
    heads = run / "model" / "heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is truncated or damaged"):
        push_heads_to_hub(run, "me/heads", client=Hub(tmp_path))
    save_file({"x": torch.ones(1)}, heads)
    with pytest.raises(ValueError, match="there is no mask head"):
        push_heads_to_hub(run, "me/heads", client=Hub(tmp_path))
