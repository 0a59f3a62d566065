"""How a training ends: its pictures, and the commands that come next."""

import json

import pytest
import torch
from clim_train.commands.before_after import Example, before_after_figure, write_before_after
from clim_train.commands.main import main
from clim_train.run.curve import write_loss_curve
from PIL import Image
from safetensors.torch import save_file
from tiny_training import VIT, small_command, tiny_model

PNG = b"\x89PNG"


def is_png(path):
    return path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("recipe", ["clim_coco_vitb16", "clipself_coco_patches_evab16"])
def test_a_run_ends_with_pictures_and_commands(recipe, shards, tmp_path, capsys):
    folder = tmp_path / "run"
    options = small_command(recipe, shards, folder)
    if recipe.startswith("clipself"):
        options = [word for word in options if "mosaic" not in word] + ["--data.image-px=32"]
    assert main(options) == 0

    assert is_png(folder / "loss.png")
    assert is_png(folder / "before_after.png")
    said = capsys.readouterr().out
    assert f"before and after: {folder / 'before_after.png'}" in said
    assert f"--pretrained {folder}" in said.partition("next:")[2]


def test_maps_are_those_of_both_ends_and_the_model_stays_trained(tmp_path, monkeypatch):
    """At alpha 0 the export is the start: both maps are equal, and differ from the trained ones."""
    model = tiny_model(VIT)
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    save_file(start, tmp_path / "start.safetensors")
    with torch.no_grad():
        for name in start:
            model.get_parameter(name).add_(torch.randn_like(start[name]) * 0.5)
    trained = {name: model.get_parameter(name).clone() for name in start}

    pixels = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    drawn = {}

    def draw(examples, before, after):
        drawn["maps"] = torch.tensor(before[0]), torch.tensor(after[0])
        return before_after_figure(examples, before, after)

    place = "clim_train.commands.before_after"
    monkeypatch.setattr(f"{place}.read_examples", lambda loader: [Example(pixels, "a thing")])
    monkeypatch.setattr(f"{place}.before_after_figure", draw)

    for alpha, same in ((0.0, True), (1.0, False)):
        write_before_after(model, None, tmp_path, alpha=alpha, image_px=32)
        assert torch.equal(*drawn["maps"]) == same
    for name, value in trained.items():
        assert torch.equal(model.get_parameter(name), value)


def test_images_without_a_text_and_broken_ones(tmp_path, shards):
    from clim_data import CropLoader
    from clim_train.commands.before_after import read_examples

    for number in range(3):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    loader = CropLoader([str(tmp_path)], image_px=32, crop_px=16, batch_size=1)
    assert [example.text for example in read_examples(loader)] == [None, None]
    assert read_examples(object()) == []


def test_one_loss_is_no_curve(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    assert write_loss_curve(tmp_path) is None
