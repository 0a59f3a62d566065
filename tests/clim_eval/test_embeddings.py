import numpy as np
import pytest
import torch
from clim_eval.embeddings import cache_folder, load_class_embeddings, save_class_embeddings

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


def test_the_cache_follows_the_users_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clim" / "classes"
