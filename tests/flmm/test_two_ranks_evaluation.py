"""`flmm eval` in two processes, started once: the same files and figures as one process, also where
one goes on after two, or two after one."""

import json
import shutil
from pathlib import Path

import pytest
from clim_data import expression_items, narrative_items, write_shards
from clim_eval import MaskScores, read_report
from conftest import GOLDEN
from flmm.commands.main import main
from flmm.evaluation.viscot import saved_answers
from tiny_grounding import Pictures, save_tiny_grounded
from two_processes import run_ranks

DATA = GOLDEN / "flmm" / "data"


def make_data(folder: Path) -> None:
    narratives = narrative_items(
        DATA / "images", DATA / "png.json", DATA / "panoptic.json", DATA / "panoptic"
    )
    write_shards(narratives, folder / "png")
    refs = next((DATA / "refcoco").glob("refs*.json"))
    write_shards(
        expression_items(DATA / "images", refs, DATA / "refcoco" / "instances.json", split="val"),
        folder / "refcoco",
    )
    (folder / "images").mkdir()
    questions = []
    for number in range(5):
        (folder / "images" / f"{number}.png").write_bytes(Pictures([1] * 5)[number].image)
        asked = [("human", "The dog ?"), ("gpt", "[0, 1]"), ("human", ""), ("gpt", "a dog")]
        turns = [{"from": who, "value": value} for who, value in asked]
        image = [f"{number}.png", f"{number}.png###[2, 3, 20, 30]"]
        questions.append({"question_id": number, "image": image, "conversations": turns})
    questions[3]["image"][0] = "none.png"
    (folder / "cub.json").write_text(json.dumps(questions))


def commands(folder: Path, out: str) -> dict[str, list[str]]:
    """Arguments of `flmm` by kind, results in `folder`/`out`/KIND."""
    named = ["--checkpoint", str(folder / "heads"), "--device=cpu"]
    scored = [*named, "--workers=0", "--pictures=0"]
    kinds = {
        "png": ["eval", "png", "--images", str(folder / "png"), *scored],
        "refcoco": ["eval", "refcoco", "--images", str(folder / "refcoco"), *scored],
        "viscot": [
            "eval",
            "viscot",
            f"--questions={folder / 'cub.json'}",
            f"--images={folder / 'images'}",
            *named,
        ],
    }
    kinds["viscot"].append("--focus=question")
    return {kind: [*arguments, "-o", str(folder / out / kind)] for kind, arguments in kinds.items()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder with results of one process ("one"), of two ("two"), and of one and then two
    ("one_two")."""
    folder = tmp_path_factory.mktemp("ranks")
    save_tiny_grounded(folder)
    make_data(folder)
    for arguments in commands(folder, "one").values():
        assert main(arguments) == 0
    shutil.copytree(folder / "one", folder / "one_two")
    for lines in [
        *folder.glob("one_two/*/samples/scores-0000.jsonl"),
        *folder.glob("one_two/**/answers-0000.jsonl"),
    ]:
        tear(lines, keep=1)
    runs = [*commands(folder, "two").values(), *commands(folder, "one_two").values()]
    (folder / "commands.json").write_text(json.dumps(runs))
    script = Path(__file__).parents[1] / "workers" / "evaluation_ranks.py"
    ended = run_ranks(script, [str(folder / "commands.json")], folder / "rank", ranks=2)
    logs = [(folder / f"rank.{rank}.log").read_text()[-4000:] for rank in range(2)]
    assert ended == [0, 0], "\n".join(logs)
    return folder


def tear(path: Path, *, keep: int) -> None:
    """As a kill leaves it: so many whole lines, and half of the next."""
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) > keep
    path.write_text("".join(lines[:keep]) + lines[keep][: len(lines[keep]) // 2])


def scored(folder: Path) -> tuple[dict, dict]:
    """Rows by sample, and the metrics of the report without the time that they took."""
    config = json.loads((folder / "samples" / "config.json").read_text())
    metrics = dict(read_report(folder)["metrics"])
    assert metrics.pop("seconds_per_phrase") > 0
    return MaskScores(folder / "samples", config=config).rows, metrics


@pytest.mark.parametrize("kind", ["png", "refcoco"])
def test_scores_are_those_of_one_process(ran, kind):
    rows, metrics = scored(ran / "one" / kind)
    assert len(rows) >= 2
    for runs in ("two", "one_two"):
        assert scored(ran / runs / kind) == (rows, metrics), runs
        assert all(
            path.stat().st_size for path in (ran / runs / kind / "samples").glob("scores-*.jsonl")
        )
        assert len(list((ran / runs / kind / "samples").glob("scores-*.jsonl"))) == 2


def test_answers_are_those_of_one_process(ran):
    def answers(runs):
        return {record["key"]: record for record in saved_answers(ran / runs / "viscot" / "cub")}

    assert len(answers("one")) == 4  # one image is missing
    for runs in ("two", "one_two"):
        assert answers(runs) == answers("one")
        assert len(list((ran / runs / "viscot" / "cub").glob("answers-*.jsonl"))) == 2


def test_one_process_goes_on_after_two(ran, capsys):
    shutil.copytree(ran / "two", ran / "two_one")
    for lines in [
        *ran.glob("two_one/*/samples/scores-0001.jsonl"),
        *ran.glob("two_one/**/answers-0001.jsonl"),
    ]:
        tear(lines, keep=0)
    for kind, arguments in commands(ran, "two_one").items():
        assert main(arguments) == 0, capsys.readouterr().err
        if kind != "viscot":
            assert scored(ran / "two_one" / kind) == scored(ran / "one" / kind)
    found = {record["key"]: record for record in saved_answers(ran / "two_one" / "viscot" / "cub")}
    assert found == {
        record["key"]: record for record in saved_answers(ran / "one" / "viscot" / "cub")
    }
