"""The examples of the README run as they are printed, in order, with small models in the places of
large ones."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import flmm
import pytest
import torch
from flmm.adapters import registry
from flmm.commands.main import COMMANDS
from flmm.commands.train import configure
from golden_lmms import golden_lmm, golden_sam, released, tokenizer_of
from tiny_lmms import picture
from transformers import CLIPImageProcessorPil

ROOT = Path(__file__).parents[2]
README = (ROOT / "packages" / "flmm" / "README.md").read_text()
PAGES = [
    README,
    (ROOT / "README.md").read_text(),
    (ROOT / "docs" / "flmm_quickstart.md").read_text(),
]
LAUNCHED = re.compile(r"^(?:deepspeed|torchrun|python) .*?(?:--module|-m) flmm\b")
RUN_COMMANDS = {"list": 0, "show": 1, "resume": 1, "convert": 1, "export": 1}


def test_examples_run(golden, tmp_path, monkeypatch, capsys):
    # The random LMM writes no noun chunks.
    monkeypatch.setattr("flmm.text.phrases.has_spacy", lambda: False)
    monkeypatch.setattr("flmm.text.phrases.simple_chunks", lambda text: text.split()[:2])
    case = golden("forward", "flmm/llava")

    def small_lmm(*_, **__):
        lmm = golden_lmm(case)
        lmm.tokenizer = tokenizer_of(case, "llava")
        return lmm

    monkeypatch.setattr("flmm.grounded.load_lmm", small_lmm)
    monkeypatch.setattr(
        flmm.SamRefiner, "from_pretrained", classmethod(lambda cls, source: golden_sam(case))
    )
    monkeypatch.setattr(flmm, "load_lmm", small_lmm, raising=False)
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.chdir(tmp_path)
    torch.save(released(case), "frozen_llava_1_5_vicuna_7b_unet_sam_l.pth")
    picture(60, 90).save("photo.jpg")

    scope: dict = {}
    blocks = [
        b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "SamRefiner.from" not in b
    ]
    for block in blocks:
        exec(compile(block, "README", "exec"), scope)
    assert len(blocks) == 4
    assert scope["masks"].shape == (2, 60, 90)
    assert scope["features"].maps.shape[:2] == (2, scope["lmm"].map_channels)
    assert scope["capture"].maps(0).shape == (2, 8, 5)
    assert "torch.Size([2, 8, 5])" in capsys.readouterr().out
    # The example of a family is as good as ours for the same model.
    lmm = scope["lmm"]
    example = scope["PaddedSquare"](
        lmm.model.config, CLIPImageProcessorPil(size={"shortest_edge": side(lmm)})
    )
    prepared = example.prepare(scope["image"])
    assert torch.equal(prepared.pixel_values, lmm.family.prepare(scope["image"]).pixel_values)
    assert torch.equal(example.layout(prepared).grids[0], lmm.family.layout(prepared).grids[0])


def side(lmm) -> int:
    return lmm.model.config.vision_config.image_size


def test_every_family_is_in_the_table():
    table = README.split("## Supported LMMs")[1].split("##")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert sorted(rows) == flmm.supported_families()


def commands(page: str) -> list[list[str]]:
    """Words after `flmm` of the lines in code blocks that call it; continued lines joined,
    launchers taken off."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.M | re.S)
    lines = [
        line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    found = [
        shlex.split(LAUNCHED.sub("flmm", line), comments=True) for line in lines if "flmm" in line
    ]
    return [words[1:] for words in found if words[:1] == ["flmm"]]


def parse(arguments: list[str]) -> None:
    """Fails unless the command is there and takes these arguments; nothing is run."""
    command, rest = arguments[0], arguments[1:]
    module = import_module(f"flmm.{COMMANDS[command][0]}")
    if command != "train":
        module.build_parser().parse_args(rest)
    elif rest[0] in RUN_COMMANDS:
        assert len(rest) - 1 == RUN_COMMANDS[rest[0]], arguments
    else:
        configure(rest[0], rest[1:])


def test_commands_parse(capsys):
    found = [arguments for page in PAGES for arguments in commands(page)]
    assert {arguments[0] for arguments in found} == set(COMMANDS)  # and all of them are told of
    for arguments in found:
        if arguments[0] == "demo-model":  # builds its parser as it runs
            continue
        try:
            parse(arguments)
        except (SystemExit, ValueError, KeyError, AssertionError) as fault:
            pytest.fail(f"{arguments}\n{fault}\n{capsys.readouterr().err}")
    for wrong in (["ground", "a.png"], ["train", "flmm_llava_1_5_vicuna_7b", "--optim.l=1"]):
        with pytest.raises(SystemExit):
            parse(wrong)
