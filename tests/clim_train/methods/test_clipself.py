"""Self-distillation end to end against the original, and what the task does beside it."""

import re

import pytest
import torch
from clim_data import CropBatch
from clim_models.losses import cosine_distillation
from clim_train.engine.module import EngineModule
from clim_train.methods.clipself import ClipSelfTask
from golden_gradients import assert_gradients
from tiny_towers import build_eva
from tiny_training import crop_unit, tiny_model


def golden_batch(case):
    """Valid boxes only, image by image."""
    rows = case.tensor("in/normed_boxes")
    valid = rows[..., 4] > 0.5
    images = case.tensor("in/images")
    crops = case.tensor("in/image_crops")[valid]
    return CropBatch(
        images,
        [r[v, :4] for r, v in zip(rows, valid, strict=True)],
        crops,
        [str(i) for i in images],
    )


def golden_student(case, weights, kind):
    student = build_eva(weights, partial_patches="crop")
    if kind == "scaled":
        factor = float(re.search(r"multiplied by ([\d.]+)", case.meta["weights_from"])[1])
        with torch.no_grad():
            for name, p in student.named_parameters():
                if ".visual." in name and ".blocks." in name and p.ndim == 2:
                    p.mul_(factor)
    return student


@pytest.mark.device
def test_golden_loss_and_gradients(golden):
    case = golden("case05_clipself")
    weights = golden(case.meta["weights_from"].split(".")[0])
    for run, facts in case.meta["runs"].items():
        student = golden_student(case, weights, facts["student"])
        student.freeze(facts["unlocked_groups"], path="dense")
        task = ClipSelfTask(student, build_eva(weights, partial_patches="crop"))
        loss = facts["cosine_weight"] * task.loss(golden_batch(case))["loss"]
        loss.backward()
        assert loss.item() == pytest.approx(case.tensor(f"out/{run}/loss").item(), abs=5e-5)
        assert_gradients(task, case, run, facts)


@pytest.mark.device
def test_golden_features_of_student_and_teacher(golden):
    case = golden("case05_clipself")
    model = build_eva(golden(case.meta["weights_from"].split(".")[0]), partial_patches="crop")
    batch = golden_batch(case)
    with torch.no_grad():
        student = model.encode_boxes(batch.images, batch.boxes, normalize=False)
        teacher = model.encode_image(batch.crops, normalize=False)
    torch.testing.assert_close(
        student, case.tensor("out/student_roi_features_same"), rtol=0, atol=5e-5
    )
    torch.testing.assert_close(teacher, case.tensor("out/teacher_crop_features"), rtol=0, atol=5e-5)


def new_task(**options):
    student = tiny_model()
    student.freeze(2, path="attention" if options.get("box_mode") == "attention" else "dense")
    return ClipSelfTask(student, tiny_model(), **options)


@pytest.mark.parametrize("mode", ["align", "attention"])
def test_loss_is_that_of_the_features(mode):
    task, batch = new_task(box_mode=mode), crop_unit(0, (2, 0, 3))
    model = task.model
    student = model.encode_boxes(model.normalize_pixels(batch.images), batch.boxes, mode=mode)
    teacher = model.encode_image(model.normalize_pixels(batch.crops))
    out = task.loss(batch)
    torch.testing.assert_close(out["loss"], cosine_distillation(student, teacher))
    assert out["boxes"].item() == 5


def test_teacher_is_frozen_stays_what_it_was_and_is_not_in_the_engine():
    task = new_task()
    before = {name: value.clone() for name, value in task.teacher.state_dict().items()}
    held = {id(p) for p in EngineModule(task, device_type="cpu").parameters()}
    assert not held & {id(p) for p in task.teacher.parameters()}
    assert held == {id(p) for p in task.trainable_parameters().values()}
    optimizer = torch.optim.SGD(task.trainable_parameters().values(), lr=1.0)
    for _ in range(2):
        task.loss(crop_unit(0, (2, 3)))["loss"].backward()
        optimizer.step()
    assert not any(p.requires_grad or p.grad is not None for p in task.teacher.parameters())
    assert not task.teacher.training
    assert all(
        torch.equal(value, before[name]) for name, value in task.teacher.state_dict().items()
    )
    assert any(not torch.equal(p, before[name]) for name, p in task.model.named_parameters())


def test_teacher_sees_all_crops_of_a_batch_at_once_or_in_parts(monkeypatch):
    batch, calls = crop_unit(0, (3, 4)), []
    whole, parts = new_task(), new_task(teacher_batch=3)
    for task in (whole, parts):
        encode = task.teacher.encode_image
        monkeypatch.setattr(
            task.teacher, "encode_image", lambda x, e=encode: calls.append(len(x)) or e(x)
        )
    torch.testing.assert_close(whole.loss(batch)["loss"], parts.loss(batch)["loss"])
    assert calls == [7, 3, 3, 1]


def test_precision_of_the_teacher_is_its_own():
    batch = crop_unit(0, (3, 4))
    exact = new_task().teacher_features(batch.crops)
    rounded = new_task(teacher_autocast=torch.bfloat16).teacher_features(batch.crops)
    with torch.autocast(
        "cpu", torch.bfloat16
    ):  # as an engine with bf16 arithmetic does around the loss
        torch.testing.assert_close(new_task().teacher_features(batch.crops), exact)
    assert (exact - rounded.float()).abs().max() > 1e-5
    torch.testing.assert_close(exact, rounded.float(), rtol=0, atol=0.05)


def test_batch_without_boxes_runs_the_tower_and_has_loss_zero():
    task = new_task()
    out = task.loss(crop_unit(0, (0, 0)))
    out["loss"].backward()
    assert out["loss"].item() == 0
    assert all(
        p.grad is not None and not p.grad.any() for p in task.trainable_parameters().values()
    )


def test_pixels_that_are_normalised_already_are_taken_as_they_are():
    task, batch = new_task(), crop_unit(0, (2, 1))
    ready = CropBatch(
        task.model.normalize_pixels(batch.images),
        batch.boxes,
        task.model.normalize_pixels(batch.crops),
        batch.keys,
    )
    torch.testing.assert_close(task.loss(batch)["loss"], task.loss(ready)["loss"])


def test_mistakes_are_refused_with_the_fix():
    model = tiny_model()
    with pytest.raises(ValueError, match="pass a copy of the start model"):
        ClipSelfTask(model, model)
    with pytest.raises(ValueError, match="use 'align' or 'attention'"):
        new_task(box_mode="crop")
    with pytest.raises(ValueError, match="a number of crops, or None"):
        new_task(teacher_batch=0)
    batch = crop_unit(0, (2, 1))
    with pytest.raises(ValueError, match="2 crops for 3 boxes"):
        new_task().loss(CropBatch(batch.images, batch.boxes, batch.crops[:2], batch.keys))
