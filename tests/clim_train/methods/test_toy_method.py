"""A method defined here works in every command from one entry of the table of methods."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from clim_models import create_model, save_model
from clim_train.commands.main import main
from clim_train.config import TrainConfig
from clim_train.methods.method import SMALL_BATCHES, DataKind, Method, MethodOptions
from clim_train.methods.sources import SourceOptions
from clim_train.methods.table import METHODS
from clim_train.options.checks import check_at_least
from clim_train.options.sections import ModelConfig, RunConfig, ScheduleConfig
from clim_train.recipes.registry import RECIPES, Recipe, RunFacts
from clim_train.run.metrics import read_metrics
from PIL import Image
from safetensors.torch import load_file
from tiny_training import VIT, register_tiny_towers

SIDE = 32


@dataclass(frozen=True)
class ToyDataConfig(SourceOptions):
    """Images, each of them in halves."""

    LEARNED_FROM: ClassVar[str] = "images of toys"

    kind: Literal["halves"] = "halves"


@dataclass(frozen=True)
class ToyConfig(MethodOptions):
    """Pulls the two halves of an image together."""

    name: Literal["toy"] = "toy"
    weight: float = 1.0
    """Factor of the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "task", weight=0.0)


@dataclass
class Halves:
    """Images (B, 3, H, W) in [0, 1]; boxes: their left and right halves, XYXY in [0, 1]."""

    images: torch.Tensor
    boxes: list[torch.Tensor]

    def to(self, device):
        return Halves(self.images.to(device), [boxes.to(device) for boxes in self.boxes])


def halves(images):
    both = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    return Halves(images, [both] * len(images))


class ToyLoader:
    """All images of a folder, batch after batch, in the order of their names."""

    def __init__(self, folder, batch_size):
        paths = sorted(Path(folder).glob("*.png"))
        pixels = [torch.from_numpy(np.array(Image.open(path))) for path in paths]
        images = torch.stack(pixels).permute(0, 3, 1, 2).float() / 255
        self.batches = [halves(part) for part in images.split(batch_size)]
        self.position = 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        while self.position < len(self):
            self.position += 1
            yield self.batches[self.position - 1]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"] % len(self)


class ToyTask:
    """`weight` times 1 - cosine of the box features of the halves."""

    def __init__(self, model, weight):
        self.model, self.weight = model, weight

    def loss(self, batch):
        features = self.model.encode_boxes(batch.images, batch.boxes)
        left, right = features[0::2], features[1::2]
        return {"loss": self.weight * (1 - (left * right).sum(-1)).mean()}

    def trainable_parameters(self):
        named = self.model.named_parameters()
        return {
            name: p for name, p in named if p.requires_grad and not name.endswith("logit_scale")
        }

    def save(self, folder, state):
        weights = {name.removeprefix("clip."): value for name, value in state.items()}
        save_model(self.model, folder, state_dict=weights)


TOY = Method(
    name="toy",
    options=ToyConfig,
    data=DataKind(
        options=ToyDataConfig,
        loader=lambda data, stream, model_px: ToyLoader(data.sources()[0], data.batch_size),
        example_batch=lambda data, model_px: halves(torch.zeros(data.batch_size, 3, SIDE, SIDE)),
        largest_px=lambda data: SIDE,
    ),
    build=lambda options, model, context: ToyTask(model, options.weight),
    gradient_path=lambda options, data: "dense",
    micro_batch=SMALL_BATCHES,
)


def toy_recipe() -> TrainConfig:
    """Pull halves of toys together."""
    return TrainConfig(
        model=ModelConfig(name=VIT, unlocked_blocks=2),
        data=ToyDataConfig(batch_size=4),
        task=ToyConfig(),
        schedule=ScheduleConfig(steps=3, warmup_steps=1),
        run=RunConfig(folder="runs/toy", log_every=1, bar=False, tensorboard=False),
    )


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    register_tiny_towers()
    monkeypatch.setitem(METHODS, "toy", TOY)
    facts = RunFacts(gpus=2, images=100, data="toys")
    monkeypatch.setitem(RECIPES, "toy_recipe", Recipe(toy_recipe, facts))


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    noise = np.random.default_rng(0)
    for number in range(8):
        image = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def test_list_has_its_data_and_size(capsys):
    assert main(["list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "toy_recipe" in line)
    assert [cell.strip() for cell in row.split("|")][4:6] == ["toys", "2 x 4"]
    assert f"| {SIDE} " in row


def test_show_and_help_have_its_options(capsys):
    assert main(["show", "toy_recipe"]) == 0
    shown = capsys.readouterr().out
    assert "Pull halves of toys together." in shown
    assert '"weight": 1.0' in shown

    with pytest.raises(SystemExit):
        main(["toy_recipe", "--help"])
    text = capsys.readouterr().out
    assert "--task.weight" in text
    assert "Factor of the loss." in text
    assert "--preset" in text


def test_estimate_takes_its_step(capsys):
    assert main(["estimate", "toy_recipe", "--engine.precision=fp32"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"GPUs x images x micro-batches: 2 x 4 x 1", text)
    assert "activations of a micro-batch" in text


def test_preset_keeps_the_images_of_a_step(capsys):
    assert main(["estimate", "toy_recipe", "--preset", "12gb"]) == 0
    assert "GPUs x images x micro-batches: 1 x 1 x 8" in capsys.readouterr().out


def test_three_steps_resume_and_export(toys, tmp_path):
    run = tmp_path / "run"
    options = [f"--data.images={toys}", "--task.weight=2", "--optim.lr=1e-2"]
    options += ["--engine.device=cpu", "--engine.precision=fp32", f"--run.folder={run}"]
    assert main(["toy_recipe", *options]) == 0

    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[2]["loss"] < lines[0]["loss"]
    assert TrainConfig.load(run).task == ToyConfig(weight=2)
    assert type(TrainConfig.load(run).data) is ToyDataConfig

    exported = load_file(run / "model" / "model.safetensors")
    start = load_file(run / "start.safetensors")
    for name, value in start.items():
        assert not torch.equal(value, exported[name.removeprefix("clip.")])
    create_model(VIT, pretrained=run / "model")

    (run / "trained.safetensors").unlink()
    assert main(["export", str(run)]) == 0
    again = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in exported.items())


def test_missing_data_are_named_by_its_own_words(tmp_path, capsys):
    assert main(["toy_recipe", "--engine.device=cpu", f"--run.folder={tmp_path}/run"]) == 2
    assert "this recipe learns from images of toys" in capsys.readouterr().err


def test_methods_of_another_name_are_refused():
    with pytest.raises(ValueError, match="'doll' has options of 'toy'"):
        Method("doll", ToyConfig, TOY.data, TOY.build, TOY.gradient_path)
    with pytest.raises(ValueError, match="give one number for each of 24gb, 12gb"):
        Method("toy", ToyConfig, TOY.data, TOY.build, TOY.gradient_path, micro_batch={"24gb": 2})
