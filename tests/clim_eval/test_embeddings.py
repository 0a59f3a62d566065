import numpy as np
import pytest
import torch
from clim_eval.embeddings import (
    cache_folder,
    load_class_embeddings,
    read_class_embeddings,
    save_class_embeddings,
)
from open_clip.transformer import QuickGELU
from tiny_training import EVA, VIT, tiny_model

NAMES = ["cat", "dog", "wall-other"]


def test_rows_come_back_by_name(tmp_path):
    rows = torch.randn(3, 4)
    save_class_embeddings(tmp_path / "sub" / "classes.safetensors", rows, NAMES, "vild")
    read = load_class_embeddings(tmp_path / "sub" / "classes.safetensors", ["wall-other", "cat"])
    assert torch.equal(read, rows[[2, 0]])


def test_npy_rows_are_taken_in_order(tmp_path):
    np.save(tmp_path / "rows.npy", np.eye(3))
    assert torch.equal(load_class_embeddings(tmp_path / "rows.npy", NAMES), torch.eye(3))


def test_mistakes_are_told(tmp_path):
    save_class_embeddings(tmp_path / "c.safetensors", torch.eye(3), NAMES, "vild")
    np.save(tmp_path / "rows.npy", np.eye(2))
    with pytest.raises(ValueError, match="zebra"):
        load_class_embeddings(tmp_path / "c.safetensors", ["cat", "zebra"])
    with pytest.raises(ValueError, match="one row per class"):
        load_class_embeddings(tmp_path / "rows.npy", NAMES)
    with pytest.raises(FileNotFoundError, match="clim-eval embed"):
        load_class_embeddings(tmp_path / "none.safetensors", NAMES)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        save_class_embeddings(tmp_path / "c.bin", torch.eye(3), NAMES, "vild")


@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_rows_of_another_text_tower_are_refused(tmp_path, ending, capsys):
    model, path = tiny_model(VIT), tmp_path / f"rows.{ending}"
    save_class_embeddings(path, torch.randn(3, model.embed_dim), NAMES, "vild", model=model)
    other = tiny_model(EVA)
    assert other.embed_dim == model.embed_dim
    with pytest.raises(
        ValueError, match=rf"of {VIT}, another model than the one in use \({EVA}\): make them with"
    ):
        load_class_embeddings(path, NAMES, model=other)
    same = tiny_model(VIT)
    with torch.no_grad():
        for name, p in same.named_parameters():
            if name.startswith("clip.visual."):
                p.add_(1)  # region training leaves the text tower as it is
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert load_class_embeddings(path, NAMES, model=same.to(dtype)).shape == (
            3,
            model.embed_dim,
        )
    with torch.no_grad():
        for p in same.float().clip.parameters():
            p.add_(1e-3)
    with pytest.raises(ValueError, match="a model of that name with other weights"):
        read_class_embeddings(path, model=same)
    assert not capsys.readouterr().err


def test_rows_that_do_not_say_whose_they_are_are_taken_with_a_notice(tmp_path, capsys, monkeypatch):
    model = tiny_model(VIT)
    np.save(tmp_path / "rows.npy", np.eye(3, model.embed_dim))
    save_class_embeddings(
        tmp_path / "old.safetensors", torch.eye(3, model.embed_dim), NAMES, "vild"
    )
    for name in ("rows.npy", "old.safetensors"):
        load_class_embeddings(tmp_path / name, NAMES, model=model)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{name} does not say which model made it: it is used for {VIT}" in said
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    load_class_embeddings(tmp_path / "rows.npy", NAMES, model=model)
    assert not capsys.readouterr().err


def test_the_cache_follows_the_users_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clim" / "classes"


@pytest.mark.parametrize("text", ["", '{"names": ["a"', "[]", "{}", '{"sha256": 1, "names": []}'])
def test_damaged_names_of_an_array_are_named(tmp_path, text):
    np.save(tmp_path / "rows.npy", np.eye(3))
    (tmp_path / "rows.npy.json").write_text(text)
    with pytest.raises(ValueError, match=r"rows\.npy\.json is damaged .* make the file with"):
        load_class_embeddings(tmp_path / "rows.npy", NAMES)


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_rows_that_are_no_vectors_are_refused(tmp_path, spoil, ending):
    rows = torch.rand(3, 4)
    rows[1] = spoil
    path = tmp_path / f"rows.{ending}"
    save_class_embeddings(path, rows, ["a", "b", "c"], "name")
    with pytest.raises(ValueError, match=r"1 of 3 rows that are all zeros or not finite.*row 1"):
        read_class_embeddings(path)


def test_a_file_that_ends_in_zeros_is_refused(tmp_path):
    path = tmp_path / "rows.safetensors"
    save_class_embeddings(path, torch.rand(3, 400), ["a", "b", "c"], "name")
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes(100))
    with pytest.raises(ValueError, match="is damaged"):
        read_class_embeddings(path)


def test_rows_of_other_activations_are_refused(tmp_path):
    """`ViT-B-32` and `ViT-B-32-quickgelu` have equal weights."""
    model, path = tiny_model(VIT), tmp_path / "rows.safetensors"
    save_class_embeddings(path, torch.eye(model.embed_dim)[:2], ["a", "b"], "photo", model=model)
    for block in model.clip.transformer.resblocks:
        block.mlp.gelu = QuickGELU()
    with pytest.raises(ValueError, match=r"with GELU activations, .* has QuickGELU"):
        load_class_embeddings(path, ["a"], model=model)
