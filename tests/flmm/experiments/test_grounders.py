"""Three grounders side by side on the demo LMM."""

import pytest
from flmm.adapters.registry import load_lmm
from flmm.demo.model_files import write_demo_model
from flmm.demo.sam import build_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.experiments.grounders import compare_grounders, grounders_note
from flmm.experiments.heads import build_grounded, evaluate
from flmm.grounders import box_refiner


def test_attention_finds_things_without_training_and_the_demo_lmm_writes_no_boxes(tmp_path):
    lmm = load_lmm(write_demo_model(tmp_path / "lmm")[0], dtype="float32")
    build_demo_sam().save_pretrained(tmp_path / "sam")
    model = build_grounded(lmm, build_demo_sam())  # heads with random weights
    train = compose_demo_scenes(tmp_path / "train", "train", count=12).read()
    test = compose_demo_scenes(tmp_path / "val", "val", count=4).read()
    figures = compare_grounders(
        model,
        box_refiner(tmp_path / "sam"),
        choose_on=[train[number] for number in range(12)],
        test=[test[number] for number in range(4)],
    )
    assert list(figures) == ["heads", "attention", "box"]
    assert figures["heads"].scores["AR"] == pytest.approx(evaluate(model, test)["refined"]["AR"])
    assert figures["attention"].scores["AR"] > 0.4
    box = figures["box"]
    assert box.unanswered == box.phrases > 0
    assert box.scores["AR"] == 0
    assert all(one.seconds > 0 for one in figures.values())
    note = grounders_note(figures)
    assert f"about {box.phrases} phrases {box.phrases} have none" in note
