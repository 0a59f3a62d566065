"""Files of weights: zeros and flipped bits behind a sound header are seen."""

import pytest
import torch
from clim_models import load_checkpoint, save_model
from clim_models.checkpoints import (
    check_values,
    checksum,
    read_checkpoint,
    read_metadata,
    read_tensors,
    save_tensors,
)
from clim_models.checkpoints.about import eval_px_of, read_object
from safetensors.torch import save_file
from tiny_towers import build_vit

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def zero_tail(path, count=6):
    data = path.read_bytes()
    path.write_bytes(data[:-count] + bytes(count))


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def test_a_file_comes_back_with_its_texts(tmp_path):
    path = tmp_path / "new" / "w.safetensors"
    save_tensors(TENSORS, path, {"format": "pt"})
    found = read_tensors(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert read_metadata(path) == {"format": "pt", "crc32": checksum(TENSORS)}
    # Files of others have no checksum.
    save_file(TENSORS, tmp_path / "foreign.safetensors")
    assert checksum(read_tensors(tmp_path / "foreign.safetensors")) == checksum(TENSORS)


@pytest.mark.parametrize("damage", [zero_tail, flip_bit])
def test_a_file_of_the_right_size_is_compared_with_its_checksum(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save_tensors(TENSORS, path)
    damage(path)
    with pytest.raises(ValueError, match=r"w\.safetensors is truncated or damaged .*checksum"):
        read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_damaged_header_is_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    for read in (read_tensors, read_metadata):
        with pytest.raises(ValueError, match=r"is truncated or damaged .*again"):
            read(path)


def test_an_export_with_a_zero_tail_is_refused(tmp_path):
    model = build_vit()
    model.name, model.config = "tiny", {"embed_dim": 16, "vision_cfg": {}, "text_cfg": {}}
    save_model(model, tmp_path / "model")
    assert load_checkpoint(build_vit(), tmp_path / "model").tensors
    zero_tail(tmp_path / "model" / "model.safetensors", 64)
    with pytest.raises(ValueError, match="checksum of its header"):
        load_checkpoint(build_vit(), tmp_path / "model")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: value.fill_(torch.nan), "no finite numbers, such as"),
        (lambda value: value.mul_(torch.inf), "no finite numbers, such as"),
        (lambda value: value.to(torch.int8), "has int8 numbers in .* not quantised"),
    ],
)
def test_weights_that_would_give_wrong_results_are_refused(tmp_path, spoil, message):
    state = build_vit().clip.state_dict()
    name = next(key for key in state if key.endswith("conv1.weight"))
    state[name] = spoil(state[name].clone())
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(build_vit(), tmp_path / "w.pt")
    # Weights in another precision are right.
    state[name] = torch.ones_like(state[name], dtype=torch.float64)
    load_checkpoint(build_vit(), state)


def test_only_entries_of_the_model_are_checked():
    whole = {"steps": torch.tensor(3)}
    check_values(whole, {"steps": torch.tensor(4), "other": torch.tensor(torch.nan)}, source="w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds no object"),
        ('{"eval_px": "96"}', "has eval_px='96': write a number of pixels"),
        ('{"eval_px": -1}', "has eval_px=-1"),
        ('{"eval_px": 1e9}', "has eval_px=1000000000.0"),
        ('{"eval_px": 1000000000}', "has eval_px=1000000000"),
        ('{"eval_px": ', "is no JSON"),
        ("[" * 100000, "is no JSON"),
    ],
)
def test_the_size_in_a_damaged_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        eval_px_of(tmp_path)


def test_a_mark_at_the_start_of_a_config_is_no_fault(tmp_path):
    (tmp_path / "config.json").write_bytes('{"eval_px": 64}'.encode("utf-8-sig"))
    assert eval_px_of(tmp_path) == 64
    assert read_object(tmp_path / "none.json") == {}


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_tensors(TENSORS, path)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    # Root may open everything.
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        read_checkpoint(path)
