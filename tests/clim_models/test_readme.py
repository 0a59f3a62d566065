"""The example of the package's README runs as it is printed."""

import re
from pathlib import Path

import torch
from PIL import Image

README = Path(__file__).parents[2] / "packages" / "clim-models" / "README.md"


def test_first_example(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(import torch\nfrom PIL.*?)```", README.read_text(), re.S)[1]
    Image.effect_noise((300, 200), 80).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(code, "README", "exec"), scope)
    assert scope["texts"].shape == (2, 512)
    torch.testing.assert_close(scope["texts"].norm(dim=-1), torch.ones(2))
    assert "tensor([[" in capsys.readouterr().out

    requests = re.search(
        r"```python\n(from clim_models import Attended.*?)```", README.read_text(), re.S
    )
    exec(compile(requests[1], "README", "exec"), scope)
    assert [len(rows) for rows in scope["features"].values()] == [1, 2, 2, 2]


def test_pictures_in_and_names_out(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(import clim_models\n.*?)```", README.read_text(), re.S)[1]
    Image.effect_noise((300, 200), 80).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(code, "README", "exec"), scope)
    assert len(scope["result"].peaks) == 2
    assert (tmp_path / "where.png").is_file()


def test_mask_head_learns_from_the_losses():
    code = re.search(
        r"```python\n(import torch\nfrom clim_models import UNetHead.*?)```",
        README.read_text(),
        re.S,
    )[1]
    scope: dict = {}
    exec(compile(code, "README", "exec"), scope)
    assert scope["logits"].shape == (5, 64, 64)
    assert all(p.grad is not None for p in scope["head"].parameters())
