"""Questions of Visual CoT: answers that are saved, what is skipped, scores with and without a
judge."""

import json

import numpy as np
import pytest
from clim_data import SkipReport
from clim_eval import read_report
from flmm.commands.main import main
from flmm.evaluation.viscot import answer_questions, read_questions, saved_answers
from flmm.evaluation.viscot_scores import answer_metrics, answers_to, box_iou, judge_answers
from stub_judge import serve_judge
from tiny_grounding import Pictures, save_tiny_grounded, tiny_grounded


@pytest.fixture(scope="module")
def model():
    return tiny_grounded().eval()


def question(number, text="The dog ?", box="[2, 3, 20, 30]"):
    asks = "Please provide the bounding box coordinate of it."
    turns = [
        {"from": "human", "value": f"<image>\n{text} {asks}"},
        {"from": "gpt", "value": "[0, 1]"},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "a dog"},
    ]
    image = [f"cub/{number}.png", f"cub/{number}.png###{box}"]
    return {"question_id": number, "image": image, "conversations": turns}


@pytest.fixture
def data(tmp_path):
    """Two pictures, and five questions: two good ones, and one each without picture, with too many
    words, and without box."""
    images = tmp_path / "images" / "cub"
    images.mkdir(parents=True)
    for number in (0, 1, 3):
        (images / f"{number}.png").write_bytes(Pictures((1, 1, 1, 1))[number].image)
    questions = [question(0), question(1), question(2), question(3, "dog " * 5000)]
    (tmp_path / "cub.json").write_text(json.dumps([*questions, question(4, box="")]))
    return tmp_path


def test_questions_are_answered_and_saved_one_by_one(model, data):
    unusable = SkipReport()
    questions = read_questions(data / "cub.json", unusable)
    first = questions[0]
    assert (first.question, first.answer, first.box) == ("The dog ?", "a dog", (2, 3, 20, 30))
    assert unusable.counts == {"bad box": 1}
    options = {
        "images": data / "images",
        "out": data / "out",
        "focus": "question",
        "bar": False,
    }
    answer_questions(model, questions[:1], **options)
    before = (data / "out" / "answers-0000.jsonl").read_bytes()
    with (data / "out" / "answers-0000.jsonl").open("ab") as file:
        file.write(b'{"key": "cut')  # by a kill
    skipped = answer_questions(model, questions, **options)
    assert skipped.counts == {"missing image": 1, "unusable question": 1}
    assert (data / "out" / "answers-0000.jsonl").read_bytes().startswith(before)
    assert [record["key"] for record in saved_answers(data / "out")] == ["cub-0", "cub-1"]
    with pytest.raises(ValueError, match="answers of another configuration"):
        answer_questions(model, questions, **{**options, "focus": None})


def test_metrics():
    answers = [
        {"key": "a", "box": [0, 0, 2, 2], "gt_bbox": [0, 0, 2, 2], "answer": "A dog", "gt": "dog"},
        {"key": "b", "box": [0, 0, 2, 2], "gt_bbox": [1, 0, 3, 2], "answer": "cat", "gt": "dog"},
    ]
    assert answer_metrics(answers, {"a": 0.8, "b": None}) == {
        "box_mIoU": pytest.approx(2 / 3),
        "box_acc@0.5": 0.5,
        "answer_exact": 0.5,
        "answer_contains": 0.5,
        "answer_F1": 0.5,
        "answer_judged": 0.4,
    }
    assert np.isnan(answer_metrics([])["box_mIoU"])


def test_verdicts_are_kept_until_the_answer_or_the_judge_changes(tmp_path):
    class Counting:
        parallel = 2

        def __init__(self, name):
            self.name, self.asked = name, []

        def __call__(self, question, truth, answer):
            self.asked.append(answer)
            return "score: 1" if answer == "dog" else "no idea"

    answers = [
        {"key": str(number), "question": "q", "gt": "dog", "answer": text}
        for number, text in enumerate(("dog", "cat", "cow"))
    ]
    judge = Counting("a")
    assert judge_answers(judge, answers[:2], tmp_path, bar=False) == {"0": 1.0, "1": None}
    assert judge_answers(judge, answers, tmp_path, bar=False) == {"0": 1.0, "1": None, "2": None}
    assert sorted(judge.asked) == ["cat", "cow", "dog"]
    answers[1]["answer"] = "dog"
    assert judge_answers(judge, answers, tmp_path, bar=False)["1"] == 1.0
    other = Counting("b")
    judge_answers(other, answers, tmp_path, bar=False)
    assert (len(judge.asked), len(other.asked)) == (4, 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_grounded(folder)
    return folder


def test_command_with_rules_a_server_and_an_lmm(files, data, capsys):
    command = [
        "eval",
        "viscot",
        f"--questions={data / 'cub.json'}",
        f"--images={data / 'images'}",
        f"--checkpoint={files / 'heads'}",
        "--device=cpu",
        "--focus=question",
        f"-o={data / 'out'}",
    ]
    assert main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "answer_F1" in said
    assert "scored 2 of 5 cub: questions, left out 3" in said
    assert "bad box: cub.json, question 5" in said
    plain = read_report(data / "out")["metrics"]["cub"]
    assert "answer_judged" not in plain

    with serve_judge(lambda text: "score: 0.5") as (url, seen):
        assert main([*command, f"--judge={url}", "--judge-model=m"]) == 0, capsys.readouterr().err
    report = read_report(data / "out")
    assert report["metrics"]["cub"] == {**plain, "answer_judged": 0.5}
    assert report["config"]["judge"] == f"m at {url}/v1/chat/completions"
    assert len(seen) == 2

    assert main([*command, f"--judge={files / 'lmm'}"]) == 0, capsys.readouterr().err
    assert 0 <= read_report(data / "out")["metrics"]["cub"]["answer_judged"] <= 1


def test_other_questions_of_the_same_name_need_another_folder(files, data, capsys):
    command = [
        "eval",
        "viscot",
        f"--questions={data / 'cub.json'}",
        f"--images={data / 'images'}",
        f"--checkpoint={files / 'heads'}",
        "--device=cpu",
        "--focus=none",
        f"-o={data / 'out'}",
    ]
    assert main(command) == 0, capsys.readouterr().err
    assert main(command) == 0, capsys.readouterr().err
    (data / "cub.json").write_text(json.dumps([question(0, "The tree ?")]))
    assert main(command) == 2
    assert "answers of another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--judge-model=m"], "pass --judge with its address"),
        (["--judge=ftp://host"], "is no address"),
        (["--judge=/no/such"], "there is no folder /no/such: pass the folder of the LMM that j"),
        (["--images=/no/such"], "nothing was scored"),
    ],
)
def test_command_mistakes(files, data, capsys, more, message):
    command = ["eval", "viscot", f"--questions={data / 'cub.json'}", f"--images={data / 'images'}"]
    named = [f"--checkpoint={files / 'heads'}", "--device=cpu", f"-o={data / 'out'}"]
    assert main([*command, *named, "--focus=none", *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--limit=0"], ["--limit=-1"], ["--limit=all"]])
def test_limits_are_checked_before_loading(data, capsys, more):
    with pytest.raises(SystemExit) as ended:
        main(["eval", "viscot", "--questions=q", "--images=i", "-o=o", *more])
    assert ended.value.code == 2
    assert "must be a whole number of at least 1" in capsys.readouterr().err


def test_golden_overlap_of_boxes(golden):
    for case in golden("demo/text_logic", "flmm").meta["iou"]:
        assert box_iou(case["a"], case["b"]) == pytest.approx(case["iou"])


def test_overlap_of_boxes():
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_answers_in_the_order_of_the_questions(model, data):
    questions = read_questions(data / "cub.json")
    options = {"images": data / "images", "out": data / "o", "focus": None, "bar": False}
    answer_questions(model, questions[1:2], **options)
    answer_questions(model, questions, **options)
    keys = [one["key"] for one in answers_to([q.key for q in questions], data / "o")]
    assert keys == ["cub-0", "cub-1"]
