"""Models go to a stubbed hub and come back; plain open_clip loads the folder offline."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from clim_models import RegionModel, create_model, from_pretrained, push_to_hub, save_model
from clim_models.hub import fetch_folder

NAME = "clim-hub-test-vit"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


class Hub:
    """Keeps what is uploaded in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, []

    def create_repo(self, repo_id, *, private, exist_ok):
        self.made.append((repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert commit_message
        shutil.copytree(folder_path, self.folder / repo_id)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> RegionModel:
    folder = tmp_path_factory.mktemp("config")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    model = create_model(NAME, pretrained="none")
    model.eval_px = 48
    return model


@pytest.fixture
def run(model, tmp_path):
    save_model(model, tmp_path / "run" / "model")
    config = {
        "model": {"name": NAME, "pretrained": "openai"},
        "data": {"images": "/home/somebody/photos"},
        "optim": {"lr": 1e-5},
    }
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def test_plain_open_clip_loads_what_was_uploaded(model, run, tmp_path):
    hub = Hub(tmp_path / "hub")
    assert push_to_hub(run, "me/mine", client=hub) == "https://hub/me/mine"
    assert hub.made == [("me/mine", True, True)]

    folder = tmp_path / "hub" / "me" / "mine"
    plain = open_clip.create_model(f"local-dir:{folder}")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.encode_image(images, normalize=True), model.encode_image(images)
        )
    ours = from_pretrained(folder)
    assert ours.eval_px == 48
    for key, value in model.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_a_model_and_a_run_folder_are_sources(model, run, tmp_path):
    push_to_hub(model, "me/mine", client=Hub(tmp_path / "hub"), private=False)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for place in (tmp_path / "hub" / "me" / "mine", run):
            found = from_pretrained(place)
            torch.testing.assert_close(found.encode_dense(images), model.encode_dense(images))


def test_the_card_says_where_the_model_comes_from(run, tmp_path):
    report = {"metrics": {"clim": {"boxes.mAcc1": 0.51234}, "start": {"boxes.mAcc1": 0.4}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    push_to_hub(run, "me/mine", report=tmp_path / "report.json", client=Hub(tmp_path / "hub"))
    card = (tmp_path / "hub" / "me" / "mine" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: open_clip\n")
    assert '"hf-hub:me/mine"' in card
    assert "at 48 px" in card
    assert "| Started from | openai |" in card
    assert "| clim / boxes.mAcc1 | 0.5123 |" in card
    # The last part of a path is enough.
    assert "| Images | photos |" in card
    assert "somebody" not in card


def test_mistakes_are_answered_with_the_fix(run, tmp_path):
    hub = Hub(tmp_path / "hub")
    with pytest.raises(ValueError, match="pass OWNER/NAME"):
        push_to_hub(run, "mine", client=hub)
    with pytest.raises(ValueError, match="Repo id"):
        push_to_hub(run, "../mine", client=hub)
    with pytest.raises(FileNotFoundError, match="clim-train export"):
        push_to_hub(tmp_path, "me/mine", client=hub)
    with pytest.raises(FileNotFoundError, match="no report"):
        push_to_hub(run, "me/mine", report=tmp_path / "none.json", client=hub)
    with pytest.raises(FileNotFoundError, match="check the path"):
        from_pretrained(tmp_path / "nowhere")
    (run / "model" / "config.json").unlink()
    with pytest.raises(ValueError, match="hf-hub"):
        from_pretrained(run)
    assert not hub.made


def test_a_repository_that_is_nowhere_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("clim_models.hub_compat.hub_answers", lambda: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hf download nobody/nothing --local-dir"):
        fetch_folder("nobody/nothing")
    assert fetch_folder(tmp_path) == tmp_path


def test_only_a_whole_model_is_published(run, tmp_path):
    hub = Hub(tmp_path / "hub")
    secret = tmp_path / "secret.txt"
    secret.write_text("mine alone")
    link = run / "model" / "notes.txt"
    link.symlink_to(secret)
    with pytest.raises(ValueError, match=r"notes\.txt is a link, and what it leads to would"):
        push_to_hub(run, "me/mine", client=hub)
    link.unlink()

    weights = run / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-64] + bytes(64))
    with pytest.raises(ValueError, match="checksum of its header"):
        push_to_hub(run, "me/mine", client=hub)
    weights.write_bytes(whole)
    (tmp_path / "report.json").write_text('{"metrics": [1, 2]}')
    with pytest.raises(ValueError, match="holds no metrics"):
        push_to_hub(run, "me/mine", report=tmp_path / "report.json", client=hub)
    assert not hub.made
