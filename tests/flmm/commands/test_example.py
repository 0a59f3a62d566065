"""`--example`: the picture and the trained model that come with flmm."""

import json

import pytest
from flmm.commands.main import main
from flmm.demo import example
from flmm.demo.example import PHRASES, write_example
from flmm.demo.model_files import write_demo_model
from flmm.demo.sam import build_demo_sam
from flmm.heads.facts import read_facts, unknown_phrases


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ground_finds_what_is_there(inside, capsys):
    assert main(["ground", "--example", "--device", "cpu", "--min-score", "0.5"]) == 0
    said = capsys.readouterr()
    assert "these heads know drawings of ten kinds" in said.err
    record = json.loads((inside / "flmm-example" / "grounded.json").read_text())
    assert record["score_kind"] == "presence"
    found = {one["phrase"]: one for one in record["phrases"]}
    assert list(found) == list(PHRASES)
    # Three are there, the last one is not.
    assert [found[phrase]["found"] for phrase in PHRASES] == [True, True, True, False]
    assert [found[phrase]["in_picture"] for phrase in PHRASES] == [True, True, True, False]
    assert "not found  score 0.0" in said.out
    assert f"not in the picture: {PHRASES[3]}" in said.out
    assert (inside / "flmm-example" / "grounded.png").is_file()

    # What it wrote is a checkpoint for the next command.
    picture = next((inside / "flmm-example" / "scenes" / "test" / "images").iterdir())
    arguments = ["ground", str(picture), "a cup", "--checkpoint", "flmm-example/run"]
    assert main([*arguments, "--device", "cpu", "-o", "cup.png"]) == 0
    assert "'a cup': not among what these heads know (anchor, bear," in capsys.readouterr().err


def test_chat_describes_the_scene(inside, capsys):
    assert main(["chat", "--example", "--device", "cpu"]) == 0
    assert "a rose" in capsys.readouterr().out
    assert (inside / "flmm-example" / "chat" / "answer-1.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ground"], "there is no picture: pass IMAGE, or --example"),
        (["chat", "-q", "what"], "there is no picture: pass IMAGE, or --example"),
        (["ground", "a.png", "--example"], "leave out IMAGE"),
        (["demo", "--example", "--checkpoint", "x"], "leave out --checkpoint"),
    ],
)
def test_what_does_not_belong_together(inside, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_shipped_heads_say_what_they_know(tmp_path):
    example = write_example(tmp_path, scenes=5)
    facts = read_facts(example.checkpoint / "model" / "heads.safetensors")
    assert facts["presence"]["hidden"] > 0
    texts = ["a red frog", "Two Bears", "a cup", "frogs"]
    assert unknown_phrases(facts["knows"], texts) == ["a cup"]


@pytest.mark.parametrize("name", ["demo_heads", "demo_lmm", "demo_sam"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "empty"])
def test_a_damaged_installation_says_so(inside, monkeypatch, name, damage):
    data = (example.HEADS.parent / f"{name}.safetensors").read_bytes()
    broken = {"cut": data[:-5000], "zeros": data[:-5000] + bytes(5000), "empty": b""}[damage]
    path = inside / f"{name}.safetensors"
    path.write_bytes(broken)
    monkeypatch.setattr(example, "HEADS", path)
    read = {
        "demo_heads": lambda: write_example(inside),
        "demo_lmm": lambda: write_demo_model(inside / "lmm", weights=path),
        "demo_sam": lambda: build_demo_sam(path),
    }[name]
    with pytest.raises(ValueError, match=r"is truncated or damaged .* --no-deps ./packages/flmm"):
        read()
