"""`flmm chat`: a conversation, answers that are printed while they are written, and options."""

import json

import pytest
import torch
from flmm.adapters.features import Answer, GeneratedAnswer
from flmm.commands.chat import AnswerPrinter
from flmm.commands.main import main
from flmm.dialogue import answers
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    save_tiny_grounded(folder)
    picture(40, 56).save(folder / "a.png")
    named = [f"--checkpoint={folder / 'heads'}", "--device=cpu", "--max-new-tokens=6"]
    return ["chat", str(folder / "a.png"), *named]


@pytest.fixture
def asked(monkeypatch):
    """The history of each question."""
    seen = []
    ask = answers.ask

    def listen(lmm, image, question, *, history, **options):
        seen.append([tuple(turn) for turn in history])
        answer = ask(lmm, image, question, history=history, **options)
        made = answer.generated
        said = GeneratedAnswer(
            torch.zeros(4, dtype=torch.int64),
            torch.full((3, *made.maps.shape[1:]), 1e-3),
            torch.ones(made.states.shape[0], 3, made.states.shape[2]),
            made.layout,
        )
        return Answer("a big dog", ((0, 2), (2, 6), (6, 9)), said, len(history))

    monkeypatch.setattr(answers, "ask", listen)
    return seen


def test_questions_are_remembered(command, asked, tmp_path, capsys):
    more = [f"-o={tmp_path}", "-q=the dog", "-q=the tree", "-q=/new", "-q=the car"]
    assert main([*command, *more]) == 0, capsys.readouterr().err
    first = ("the dog", "a big dog")
    assert asked == [[], [first], []]
    saved = json.loads((tmp_path / "answer-2.json").read_text())
    assert (saved["question"], saved["history"]) == ("the tree", [list(first)])
    for number in (1, 3):  # the first of each conversation
        assert "history" not in json.loads((tmp_path / f"answer-{number}.json").read_text())


def test_without_history(command, asked, tmp_path, capsys):
    more = ["--no-history", f"-o={tmp_path}", "-q=the dog", "-q=the tree"]
    assert main([*command, *more]) == 0, capsys.readouterr().err
    assert asked == [[], []]


def test_an_answer_is_printed_while_it_is_written(capsys):
    printer = AnswerPrinter()
    shown = []
    for piece in (" ", "a", " big ", "\n", "dog", "\n"):
        printer(piece)
        shown.append(capsys.readouterr().out)
    printer.finish()
    assert shown == ["", "a", " big", "", " \ndog", ""]
    assert capsys.readouterr().out == "\n"


def test_heads_whose_models_are_gone_name_the_options(command, tmp_path, capsys):
    gone = {"lmm": str(tmp_path / "gone"), "sam": str(tmp_path / "gone")}
    (tmp_path / "grounding.json").write_text(json.dumps(gone))
    (tmp_path / "heads.safetensors").write_bytes(b"")
    assert main([*command, "-q=a", f"--checkpoint={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert f"names the LMM {tmp_path / 'gone'}, which is not there: pass --lmm" in said
    assert "--sam" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-q="], "-q with an empty question: ask something"),
        (["-q= "], "-q with an empty question"),
        (["-q=a", "--max-new-tokens=0"], "'0' must be a whole number of at least 1"),
        (["-q=a", "--max-new-tokens=-3"], "'-3' must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_told_before_loading(command, capsys, more, message):
    try:
        status = main([*command, *more])
    except SystemExit as ended:  # of the parser
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2
    assert message in said
    assert "loading" not in said
