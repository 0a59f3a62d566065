"""`flmm train presence`: new heads next to the old ones, whose masks they have."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from clim_data.pixels import encode_mask
from flmm import load_grounded
from flmm.commands.main import main
from flmm.demo.example import write_example
from flmm.heads.files import open_heads
from flmm.heads.sources import trained_with
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture
from torch import equal

PAGE = Path(__file__).parents[3] / "docs" / "flmm_quickstart.md"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of a tiny model, of eight images, and of phrases that it "finds" half of the time."""
    root = tmp_path_factory.mktemp("presence")
    model = save_tiny_grounded(root)
    (root / "images").mkdir()
    records = []
    for number in range(8):
        name = f"{number}.png"
        image = picture(40, 56, seed=number)
        image.save(root / "images" / name)
        phrases = ["a big dog", "the tree"]
        found = (model_masks(model, image, phrases) > 0).numpy()
        for phrase, mask in zip(phrases, found, strict=True):
            # What it draws counts as right, so that there is something to fit.
            mask = mask if mask.any() else np.ones_like(mask)
            records.append({"image": name, "phrase": phrase, "segmentation": encode_mask(mask)})
        records.append({"image": name, "phrase": "a red car", "present": False})
    (root / "phrases.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root


def model_masks(model, image, phrases):
    from flmm import ground_phrases

    return ground_phrases(model, image, phrases, each_alone=True).refined


def fit(root, *more):
    data = [f"--images={root / 'images'}", f"--phrases={root / 'phrases.jsonl'}"]
    heads = f"--checkpoint={root / 'heads'}"
    return main(["train", "presence", heads, *data, "--device=cpu", *more])


def test_new_heads_lie_next_to_the_old_ones(files, capsys):
    old = files / "heads" / "heads.safetensors"
    before = old.read_bytes()
    assert fit(files, "--t-acc", "0.9") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "fitted on 24 phrases (16 of them present) of 8 images; on images that" in said
    assert old.read_bytes() == before

    new = files / "heads" / "heads-presence.safetensors"
    assert f"heads with their presence head in {new}" in said
    tensors = open_heads(new)
    for name, value in open_heads(old).items():
        assert equal(tensors[name], value)
    model = load_grounded(
        files / "lmm", sam=files / "sam", heads=new, dtype="float32", device="cpu"
    )
    assert model.heads.score_kind == "presence"
    assert 0 < model.heads.absent_below < 1

    # The folder says already which LMM and SAM belong to it.
    image = str(files / "images" / "0.png")
    out = files / "out.png"
    assert main(["ground", image, "a dog", f"--checkpoint={new}", "-o", str(out)]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["phrases"][0]["in_picture"] in (0, 1)

    assert fit(files) == 2
    assert "is there already: name another file with -o, or pass --overwrite" in (
        capsys.readouterr().err
    )


def test_elsewhere_the_models_are_named(files, tmp_path, capsys):
    out = tmp_path / "new" / "mine.safetensors"
    assert fit(files, "-o", str(out), "--seed=1") == 0, capsys.readouterr().err
    assert [trained_with(out, part) for part in ("lmm", "sam")] == [
        str(files / "lmm"),
        str(files / "sam"),
    ]


def test_the_page_on_drawn_scenes(tmp_path, monkeypatch, capsys):
    """References as gRefCOCO has them, written and fitted as the page of the quick start says."""
    monkeypatch.chdir(tmp_path)
    write_example("flmm-quickstart", scenes=8)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec(compile(block, PAGE.name, "exec"), {})
    (command,) = re.findall(r"^flmm (train presence .*?[^\\])$", PAGE.read_text(), re.S | re.M)
    words = command.replace("\\\n", " ").split()
    assert main([*words, "--device=cpu"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "of 8 images; on images that were left out in turn: AUROC" in said
    assert "heads with their presence head in flmm-quickstart/own.safetensors" in said

    image = "flmm-quickstart/scenes/test/images/000000000001.png"
    new = ["--checkpoint=flmm-quickstart/own.safetensors", "-o", "out.png"]
    assert main(["ground", image, "a rose", *new]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["score_kind"] == "presence"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--refs=x.json"], "Pass --phrases FILE, or all of --refs, --instances-json and --split"),
        (["--out=x.pth"], "end -o x.pth with .safetensors"),
        (["--phrases=none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(files, more, message, capsys):
    assert fit(files, "--overwrite", *more) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_is_refused_before_the_work(files, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "grounding.json").write_text(json.dumps({"lmm": "llava-hf/llava-1.5-7b-hf"}))
    assert fit(files, "-o", str(other / "mine.safetensors")) == 2
    assert "belong to the LMM llava-hf/llava-1.5-7b-hf" in capsys.readouterr().err

    (tmp_path / "file").write_text("")
    assert fit(files, "-o", str(tmp_path / "file" / "mine.safetensors")) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert "grounding the phrases" not in said
    with pytest.raises(SystemExit):
        fit(files, "--overwrite", "--seed=-1")
    assert "at least 0" in capsys.readouterr().err
