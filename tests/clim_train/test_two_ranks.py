"""Two processes, started once by the deepspeed launcher, against one process with the same global
batch."""

from pathlib import Path

import pytest
import torch
from clim_train.commands.runs import convert_run
from clim_train.methods.clim import ClimTask
from clim_train.run.checkpoints import CheckpointFolder
from clim_train.run.metrics import read_metrics
from tiny_training import EVA, VIT, Crossed, join, tiny_config, tiny_model, tiny_trainer, unit
from tolerance import SAME_LOSSES
from two_processes import run_two_processes


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder of what two processes wrote; they end by being killed."""
    return run_two_processes(
        Path(__file__).parents[1] / "workers" / "two_ranks.py", tmp_path_factory.mktemp("two_ranks")
    )


def test_golden_features_of_two_processes(golden, launched):
    """The original returns the mean over a rank's rows, and sums gradients over ranks; ours average
    to the global loss.

    With equal shares, a rank's loss is the mean over its rows in both, so losses agree rank by
    rank. Feature gradients are those of the SUM over ranks of the losses in both: the collective
    adds what each rank asks of a row. A parameter's gradient, the sum over rows of (feature
    gradient x feature slope), is then averaged over the two ranks by the engine: half of the sum,
    which is the gradient of the mean of the losses, the loss of one process with all rows. So the
    golden single-process gradients are half of these.
    """
    case = golden("case04_clim_loss")
    ranks = [torch.load(launched / f"features{r}.pt") for r in (0, 1)]
    rows = sum(len(r["gi"]) for r in ranks)
    for r, ours in enumerate(ranks):
        for key, value in case.under(f"out/feat_2proc/rank{r}/").items():
            torch.testing.assert_close(
                ours[key], value, rtol=1e-4, atol=2e-6, msg=f"rank {r} {key}"
            )
    if rows != len(case.tensor("in/feat/image_features")):
        return  # one process had more rows than these two
    assert torch.stack([r["loss"] for r in ranks]).mean().item() == pytest.approx(
        case.tensor("out/feat/loss").item(), abs=1e-5
    )
    for ours, theirs in (("gi", "image_features"), ("gt", "text_features")):
        halved = torch.cat([r[ours] for r in ranks]) / 2
        torch.testing.assert_close(
            halved, case.tensor(f"out/feat/grad_{theirs}"), rtol=1e-4, atol=1e-6
        )
    mean_scale = torch.stack([r["gs"] for r in ranks]).mean()
    torch.testing.assert_close(
        mean_scale, case.tensor("out/feat/grad_logit_scale"), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", [VIT, EVA])
@pytest.mark.parametrize("mask", [False, True])
def test_two_ranks_have_the_loss_and_gradients_of_one_process(launched, name, mask):
    task = ClimTask(tiny_model(name), mask_duplicate_captions=mask)
    batch = join([unit(0), unit(1)])
    assert len(set(batch.captions)) < len(batch)
    loss = task.loss(batch)["loss"]
    loss.backward()
    expected = {n: p.grad for n, p in task.trainable_parameters().items() if p.grad is not None}
    for rank in (0, 1):
        found = torch.load(launched / f"{name}-{mask}-{rank}.pt")
        assert found.pop("loss").item() == pytest.approx(loss.item(), rel=SAME_LOSSES)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("stage", [1, 3])
def test_two_ranks_train_as_one_process(launched, tmp_path, stage):
    tiny_trainer(tiny_config(tmp_path, zero_stage=stage)).fit()
    assert losses(launched / f"whole{stage}") == pytest.approx(losses(tmp_path), rel=1e-4)


@pytest.mark.parametrize("stage", [2, 3])
def test_rank_without_single_images_neither_waits_nor_counts_wrong(launched, tmp_path, stage):
    """Only single images give some layers of this tower a gradient."""
    config = tiny_config(tmp_path, zero_stage=stage, steps=3)
    tiny_trainer(config, model=tiny_model(EVA), uneven=True).fit()
    assert losses(launched / f"uneven{stage}") == pytest.approx(losses(tmp_path), rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2])
def test_ranks_with_different_graphs_add_gradients_of_the_same_parameters(launched, stage):
    """The gradients of two layers of one shape come in another order, those of a third on one rank
    only."""
    task = Crossed()
    sum(task.loss(rank)["loss"] for rank in (0, 1)).backward()
    for rank in (0, 1):
        found = torch.load(launched / f"crossed{stage}-{rank}.pt")
        for name, p in task.trainable_parameters().items():
            torch.testing.assert_close(found[name], (p - 0.1 * p.grad / 2).detach(), msg=name)


@pytest.mark.parametrize("stage", [1, 3])
def test_two_ranks_resume_to_the_last_digit(launched, stage):
    # Text features that were kept are computed again after a resume, in batches of other lengths;
    # stage 3 gathers weights together once it knows their order, one by one before. Both mean other
    # rounding in matrix products.
    assert losses(launched / f"parts{stage}") == pytest.approx(
        losses(launched / f"whole{stage}"), rel=1e-6, abs=0
    )


@pytest.mark.parametrize("stage", [1, 3])
def test_other_number_of_ranks_says_what_to_run_and_then_continues(launched, stage):
    folder = launched / f"stopped{stage}"
    config = tiny_config(folder, zero_stage=stage)
    with pytest.raises(ValueError, match=rf"clim-train convert {folder}"):
        tiny_trainer(config, resume=True)
    convert_run(str(folder))
    trainer = tiny_trainer(config, resume=True)
    assert trainer.step == 4
    trainer.fit()
    assert losses(folder) == pytest.approx(losses(launched / f"whole{stage}"), rel=1e-4)


def test_stage_0_continues_on_any_number_of_ranks(launched):
    tiny_trainer(tiny_config(launched / "stopped0", zero_stage=0), resume=True).fit()
    assert losses(launched / "stopped0") == pytest.approx(losses(launched / "whole1"), rel=1e-4)


def test_kill_while_saving_leaves_the_checkpoint_before(launched):
    checkpoints = launched / "killed" / "checkpoints"
    assert (checkpoints / "step-00000004.partial").is_dir()
    assert CheckpointFolder(checkpoints).complete()[-1].name == "step-00000002"
    convert_run(str(launched / "killed"))
    trainer = tiny_trainer(tiny_config(launched / "killed"), resume=True)
    assert trainer.step == 2
    assert not (checkpoints / "step-00000004.partial").exists()
    trainer.fit()
    assert losses(launched / "killed") == pytest.approx(losses(launched / "whole1"), rel=1e-4)


def test_means_of_scalars_that_one_rank_lacks(launched):
    for rank in (0, 1):
        assert torch.load(launched / f"means-{rank}.pt") == {"captions": 4.0, "loss": 2.0}
