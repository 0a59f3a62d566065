"""The examples of the README run as they are printed, in order, with small models in the places of
large ones."""

import json
import re
from pathlib import Path

import flmm
import torch
from flmm.adapters import registry
from golden_lmms import golden_lmm, golden_sam, released, tokenizer_of
from tiny_lmms import picture
from transformers import CLIPImageProcessorPil

ROOT = Path(__file__).parents[2]
README = (ROOT / "packages" / "flmm" / "README.md").read_text()


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
        flmm.SamRefiner, "from_pretrained", classmethod(lambda cls, source, **_: golden_sam(case))
    )
    monkeypatch.setattr(flmm, "load_lmm", small_lmm, raising=False)
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.chdir(tmp_path)
    torch.save(released(case), "frozen_llava_1_5_vicuna_7b_unet_sam_l.pth")
    for name in ("photo", "a", "b"):
        picture(60, 90).save(f"{name}.jpg")
    save_run(Path("runs/llava"))

    scope: dict = {}
    blocks = [
        b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "SamRefiner.from" not in b
    ]
    for block in blocks:
        exec(compile(block, "README", "exec"), scope)
    assert len(blocks) == 6
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


def save_run(folder: Path) -> None:
    """What a training leaves behind, with the released heads."""
    heads = "frozen_llava_1_5_vicuna_7b_unet_sam_l.pth"
    named = {part: str(folder.resolve() / part) for part in ("lmm", "sam")}
    for part in named.values():
        Path(part).mkdir(parents=True)
    model = flmm.load_grounded(named["lmm"], sam=named["sam"], heads=heads)
    model.save_heads(folder / "heads.safetensors")
    (folder / "grounding.json").write_text(json.dumps(named))


def side(lmm) -> int:
    return lmm.model.config.vision_config.image_size


def test_every_family_is_in_the_table():
    table = README.split("## Supported LMMs")[1].split("##")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    named = re.findall(r"`(\w+)`", " ".join(cells))
    assert sorted(set(named)) == flmm.supported_families()
