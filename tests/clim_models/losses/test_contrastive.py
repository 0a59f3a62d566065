import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clim_models.losses.contrastive import contrastive_loss
from clim_models.losses.gather import GatherFeatures
from tolerance import float32_sum

RANKS = 2
# Each figure is a sum over the channels of a row and over the rows of a batch.
CLOSE = float32_sum(100)


def unit_rows(n, channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, channels, generator=generator), dim=-1)


def loss_and_gradients(images, texts, scale, ids=None):
    images, texts, scale = (x.clone().requires_grad_() for x in (images, texts, scale))
    loss = contrastive_loss(images, texts, scale, caption_ids=ids)
    loss.backward()
    return {"loss": loss.detach(), "images": images.grad, "texts": texts.grad, "scale": scale.grad}


def slow_loss(images, texts, scale, ids):
    """Row by row, with the negatives picked by hand."""
    terms = []
    for left, right in ((images, texts), (texts, images)):
        for i in range(len(left)):
            kept = [j for j in range(len(right)) if j == i or ids is None or ids[j] != ids[i]]
            logits = torch.stack([scale * (left[i] * right[j]).sum() for j in kept])
            terms.append(logits.exp().sum().log() - scale * (left[i] * right[i]).sum())
    return torch.stack(terms).mean()


@pytest.mark.device
def test_golden_loss_of_one_process(golden):
    case = golden("case04_clim_loss")
    result = loss_and_gradients(
        *(
            case.tensor(f"in/feat/{key}")
            for key in ("image_features", "text_features", "logit_scale")
        )
    )
    expected = case.under("out/feat/")
    torch.testing.assert_close(result["loss"], expected["loss"], atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(
        result["images"], expected["grad_image_features"], atol=CLOSE, rtol=1e-5
    )
    torch.testing.assert_close(
        result["texts"], expected["grad_text_features"], atol=CLOSE, rtol=1e-5
    )
    torch.testing.assert_close(result["scale"], expected["grad_logit_scale"], atol=CLOSE, rtol=1e-5)


@pytest.mark.parametrize("ids", [None, [0, 1, 0, 2, 1, 0, 3], [4] * 7])
def test_equals_the_loss_written_row_by_row(ids):
    images, texts, scale = unit_rows(7, seed=1), unit_rows(7, seed=2), torch.tensor(9.0)
    ids = None if ids is None else torch.tensor(ids)
    torch.testing.assert_close(
        contrastive_loss(images, texts, scale, caption_ids=ids),
        slow_loss(images, texts, scale, ids),
    )


def test_rows_with_one_caption_do_not_push_each_other_away():
    images, texts = unit_rows(2, seed=1).requires_grad_(), unit_rows(2, seed=2)
    contrastive_loss(images, texts, 10.0, caption_ids=torch.tensor([5, 5])).backward()
    assert images.grad.abs().max() == 0


def test_bfloat16_features_are_compared_in_float32():
    images, texts = unit_rows(6, seed=1).bfloat16(), unit_rows(6, seed=2).bfloat16()
    loss = contrastive_loss(images, texts, 30.0)
    assert loss.dtype == torch.float32
    expected = contrastive_loss(images.float(), texts.float(), 30.0)
    torch.testing.assert_close(loss, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(contrastive_loss(images, texts, 30.0), expected)


@pytest.fixture(scope="module")
def two_ranks(golden, tmp_path_factory):
    """The cases, and for each the results of two real processes."""
    folder = tmp_path_factory.mktemp("gather")
    case = golden("case04_clim_loss")
    rows = sum(len(case.tensor(f"out/feat_2proc/rank{rank}/gi")) for rank in range(RANKS))
    cases = {
        "golden": {
            "images": case.tensor("in/feat/image_features")[:rows],
            "texts": case.tensor("in/feat/text_features")[:rows],
            "scale": case.tensor("in/feat/logit_scale"),
            "ids": None,
            "counts": [len(case.tensor(f"out/feat_2proc/rank{rank}/gi")) for rank in range(RANKS)],
        }
    }
    for name, counts, ids in (
        ("uneven", [3, 6], None),
        ("uneven_duplicates", [5, 2], torch.tensor([0, 1, 0, 2, 3, 1, 0])),
        ("empty_rank", [4, 0], None),
    ):
        n = sum(counts)
        scale = torch.tensor(7.0)
        images, texts = unit_rows(n, seed=3), unit_rows(n, seed=4)
        cases[name] = {
            "images": images,
            "texts": texts,
            "scale": scale,
            "ids": ids,
            "counts": counts,
        }
    torch.save(cases, folder / "in.pt")
    worker = Path(__file__).parents[2] / "workers" / "gather_worker.py"
    running = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(RANKS), str(folder)],
            stderr=subprocess.PIPE,
        )
        for rank in range(RANKS)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    return cases, [
        torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)
    ]


def test_golden_loss_of_two_processes(golden, two_ranks):
    case = golden("case04_clim_loss")
    for rank, results in enumerate(two_ranks[1]):
        result, expected = results["golden"], case.under(f"out/feat_2proc/rank{rank}/")
        torch.testing.assert_close(result["loss"], expected["loss"], atol=CLOSE, rtol=CLOSE)
        torch.testing.assert_close(result["images"], expected["gi"], atol=CLOSE, rtol=1e-5)
        torch.testing.assert_close(result["texts"], expected["gt"], atol=CLOSE, rtol=1e-5)
        torch.testing.assert_close(result["scale"], expected["gs"], atol=CLOSE, rtol=1e-5)


@pytest.mark.parametrize("name", ["golden", "uneven", "uneven_duplicates", "empty_rank"])
def test_two_ranks_averaged_equal_one_process(two_ranks, name):
    cases, ranks = two_ranks
    case, results = cases[name], [rank[name] for rank in ranks]
    whole = loss_and_gradients(case["images"], case["texts"], case["scale"], case["ids"])
    close = {"atol": CLOSE, "rtol": 1e-5}
    torch.testing.assert_close(sum(r["loss"] for r in results) / RANKS, whole["loss"], **close)
    torch.testing.assert_close(sum(r["scale"] for r in results) / RANKS, whole["scale"], **close)
    # A row lives on one rank only: the average over ranks of what it passes to shared weights is
    # its gradient / R.
    torch.testing.assert_close(
        torch.cat([r["images"] for r in results]) / RANKS, whole["images"], **close
    )
    torch.testing.assert_close(
        torch.cat([r["texts"] for r in results]) / RANKS, whole["texts"], **close
    )


def test_gather_of_a_single_rank_changes_nothing():
    images, texts = unit_rows(4, seed=1), unit_rows(4, seed=2)
    ids = torch.tensor([0, 0, 1, 2])
    torch.testing.assert_close(
        contrastive_loss(images, texts, 5.0, caption_ids=ids, gather=GatherFeatures(1, 0)),
        contrastive_loss(images, texts, 5.0, caption_ids=ids),
    )


def test_mistakes_are_told(monkeypatch):
    monkeypatch.setattr(
        torch.distributed, "is_initialized", lambda: False
    )  # other tests leave a group behind
    with pytest.raises(ValueError, match="one text row per image row"):
        contrastive_loss(unit_rows(3), unit_rows(4), 1.0)
    with pytest.raises(ValueError, match="one integer per row"):
        contrastive_loss(unit_rows(3), unit_rows(3), 1.0, caption_ids=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="at least one pair"):
        contrastive_loss(unit_rows(0), unit_rows(0), 1.0)
    with pytest.raises(ValueError, match="init_process_group"):
        GatherFeatures(2, 0)
    with pytest.raises(ValueError, match="rank"):
        GatherFeatures(2, 2)
