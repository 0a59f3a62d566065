"""RegionCLIP-style training end to end against the original, and what the task does beside it."""

import pytest
import torch
from clim_data import BoxBatch
from clim_models.losses import federated_region_loss
from clim_train.methods.regionclip import RegionClipTask
from golden_gradients import assert_gradients
from tiny_towers import build_eva
from tiny_training import box_unit, class_embeddings, tiny_model
from torch.nn import functional as F


def golden_batch(case, run):
    rows = case.tensor(f"in/{run}/boxes")
    valid = rows[..., 5] > 0.5
    boxes = [r[v, :4] for r, v in zip(rows, valid, strict=True)]
    return BoxBatch(
        case.tensor(f"in/{run}/images"),
        boxes,
        rows[valid][:, 4].long(),
        [str(i) for i in range(len(rows))],
    )


@pytest.mark.device
def test_golden_loss_and_gradients(golden):
    case = golden("case06_regionclip")
    weights = golden(case.meta["weights_from"].split(".")[0])
    for run, facts in case.meta["runs"].items():
        model = build_eva(weights, partial_patches="crop")
        model.freeze(facts["unlocked_groups"], path="dense")
        task = RegionClipTask(model, case.tensor(f"in/{run}/noun_embeddings"), sampling="original")
        batch = golden_batch(case, run)
        theirs = torch.bincount(case.tensor(f"out/{run}/appeared"), minlength=facts["C"]).float()
        ours = task.class_weights(batch.labels)
        assert ours.sum() == facts["n_appeared"]
        present = torch.bincount(batch.labels, minlength=facts["C"]).bool()
        assert ours[present].eq(theirs[present]).all()
        if (
            present.sum() == facts["n_appeared"] or facts["n_appeared"] == facts["C"]
        ):  # nothing is left to chance
            assert torch.equal(ours, theirs)
        task.class_weights = lambda labels, theirs=theirs: (
            theirs
        )  # the classes that chance gave the original
        loss = task.loss(batch)["loss"]
        loss.backward()
        assert loss.item() == pytest.approx(case.tensor(f"out/{run}/loss").item(), rel=1e-5)
        assert_gradients(task, case, run, facts)


def new_task(classes=9, **options):
    model = tiny_model()
    model.freeze(2, path="attention" if options.get("box_mode") == "attention" else "dense")
    return RegionClipTask(model, class_embeddings(classes), **options)


@pytest.mark.parametrize("mode", ["align", "attention"])
def test_loss_is_that_of_the_features_at_the_temperature_of_the_model(mode):
    task, batch = new_task(box_mode=mode, sampled_classes=None), box_unit(0, (2, 0, 3))
    model = task.model
    features = model.encode_boxes(model.normalize_pixels(batch.images), batch.boxes, mode=mode)
    unit = F.normalize(class_embeddings(9), dim=1)
    out = task.loss(batch)
    torch.testing.assert_close(
        out["loss"],
        federated_region_loss(features, unit, batch.labels, model.logit_scale.detach().exp()),
    )
    assert (out["boxes"].item(), out["classes"].item()) == (5, 9)


def test_temperature_does_not_train():
    task = new_task()
    task.loss(box_unit(0, (2, 3)))["loss"].backward()
    assert task.model.logit_scale.grad is None
    assert "clip.logit_scale" not in task.trainable_parameters()


def test_samples_differ_from_batch_to_batch_and_follow_the_random_state():
    task, labels = new_task(50, sampled_classes=10), torch.tensor([3, 3, 7])
    torch.manual_seed(1)
    first = [task.class_weights(labels) for _ in range(2)]
    torch.manual_seed(1)
    again = [task.class_weights(labels) for _ in range(2)]
    assert not torch.equal(*first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(w.sum() == 10 and w[[3, 7]].eq(1).all() for w in first)


def test_original_sampling_counts_present_classes_twice_where_classes_are_few():
    labels = torch.tensor([3, 3, 7])
    assert new_task(9, sampled_classes=20).class_weights(labels).tolist() == [1] * 9
    twice = new_task(9, sampled_classes=20, sampling="original").class_weights(labels)
    assert twice.tolist() == [1, 1, 1, 2, 1, 1, 1, 2, 1]


def test_batch_without_boxes_runs_the_tower_and_has_loss_zero():
    task = new_task()
    out = task.loss(box_unit(0, (0, 0)))
    out["loss"].backward()
    assert out["loss"].item() == 0
    assert all(
        p.grad is not None and not p.grad.any() for p in task.trainable_parameters().values()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_mode": "crop"}, "use 'align' or 'attention'"),
        ({"sampling": "twice"}, "use one of"),
        ({"sampled_classes": 0}, "or None for all"),
        ({"classes": 0}, "one row each"),
    ],
)
def test_mistakes_are_refused_with_the_fix(options, message):
    with pytest.raises(ValueError, match=message):
        new_task(**options)
