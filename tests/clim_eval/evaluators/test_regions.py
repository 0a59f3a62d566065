import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_data import BrokenSample
from clim_eval.evaluators import region_pass
from clim_eval.evaluators.regions import READOUTS, RegionClassification
from clim_eval.evaluators.sharing import EvaluationLoading
from clim_models import Pooled

RANKS = 2


def test_equals_a_loop_over_single_regions(toy, monkeypatch):
    monkeypatch.setattr(region_pass, "CROPS_PER_PASS", 5)
    model, rows, data = toy.ToyModel(), toy.class_rows(), toy.Regions(9)
    found = RegionClassification(model, rows, batch_size=4).collect(data)
    ranks = {"boxes": [], "masks": [], "crops": []}
    labels = []
    for sample in (data[i] for i in range(len(data))):
        pixels = model.normalize_pixels(sample.image[None])
        for n, label in enumerate(sample.labels.tolist()):
            features = {
                **{
                    kind: model.encode(
                        pixels, [Pooled(kind)], **{kind: [getattr(sample, kind)[n : n + 1]]}
                    )[Pooled(kind)]
                    for kind in ("boxes", "masks")
                },
                "crops": model.encode_image(model.normalize_pixels(sample.crops[n : n + 1])),
            }
            for name, feature in features.items():
                order = (F.normalize(rows, dim=1) @ feature[0]).argsort(descending=True).tolist()
                ranks[name].append(order.index(label))
            labels.append(label)
    assert found.labels.tolist() == labels
    assert {name: values.tolist() for name, values in found.ranks.items()} == ranks
    assert found.counts()["regions"] == len(labels)
    assert found.counts()["images"] == sum(len(data[i].labels) > 0 for i in range(len(data)))


def test_metrics_follow_from_the_rows(toy):
    evaluator = RegionClassification(toy.ToyModel(), toy.class_rows(), outputs=("boxes",))
    rows = evaluator.collect(toy.Regions(12))
    metrics = evaluator.run(toy.Regions(12))
    assert set(metrics) == {
        f"{r}.{g}.mAcc{k}"
        for r in ("boxes", "crops")
        for g in ("thing", "stuff", "all")
        for k in (1, 5)
    }
    per_class = [
        np.mean(rows.ranks["boxes"][rows.labels == c] == 0) for c in np.unique(rows.labels)
    ]
    assert metrics["boxes.all.mAcc1"] == pytest.approx(np.mean(per_class))
    things = rows.is_thing
    per_class = [
        np.mean(rows.ranks["crops"][things & (rows.labels == c)] < 5)
        for c in np.unique(rows.labels[things])
    ]
    assert metrics["crops.thing.mAcc5"] == pytest.approx(np.mean(per_class))


def test_one_forward_per_batch_for_all_readouts(tiny_towers):
    """A real tower: five readouts of two images come from one pass over the pixels."""
    model = tiny_towers.build_vit()
    calls = []
    model.visual.conv1.register_forward_hook(lambda *_: calls.append(1))
    generator = torch.Generator().manual_seed(0)
    samples = [_sample(generator, n) for n in (3, 2)]
    outputs = ("boxes", "boxes_value", "boxes_attention", "masks", "masks_attention")
    evaluator = RegionClassification(
        model, torch.randn(4, 24), outputs=outputs, crops=False, batch_size=2
    )
    rows = evaluator.collect(samples)
    assert len(calls) == 1
    assert set(rows.ranks) == set(outputs)
    pixels = model.normalize_pixels(torch.stack([s.image for s in samples]))
    with torch.no_grad():
        alone = model.encode_boxes(pixels, [s.boxes for s in samples], mode="attention")
    own = F.normalize(evaluator.class_embeddings, dim=1)[torch.cat([s.labels for s in samples])]
    np.testing.assert_allclose(
        rows.similarities["boxes_attention"], (alone * own).sum(1).numpy(), atol=1e-5
    )


def _sample(generator, n):
    from types import SimpleNamespace

    corners = torch.rand(n, 2, 2, generator=generator).sort(dim=1).values
    return SimpleNamespace(
        image=torch.randint(0, 256, (3, 48, 48), generator=generator, dtype=torch.uint8),
        boxes=corners.reshape(n, 4),
        labels=torch.randint(0, 4, (n,), generator=generator),
        areas=torch.ones(n),
        is_thing=torch.ones(n, dtype=torch.bool),
        masks=(torch.rand(n, 6, 6, generator=generator) > 0.4).to(torch.uint8),
        crops=None,
        image_id=int(torch.randint(0, 10**6, (1,), generator=generator)),
    )


def test_the_model_is_left_in_its_mode(toy):
    model = toy.ToyModel().train()
    RegionClassification(model, toy.class_rows()).run(toy.Regions(3))
    assert model.training


def test_no_region_at_all_is_a_mistake(toy):
    evaluator = RegionClassification(toy.ToyModel(), toy.class_rows())
    with pytest.raises(ValueError, match=r"nothing was scored \(scored 0 of 1 images.*annotation"):
        evaluator.run(toy.Regions(1))
    with pytest.raises(ValueError, match="the data has no item"):
        evaluator.collect([])


def test_what_is_left_out_is_counted_by_image_and_by_region(toy):
    data = [toy.Regions(4)[i] for i in range(4)]  # of 0, 1, 2 and 3 regions
    broken = toy.Regions(1)[0]
    broken.fault, broken.annotated = BrokenSample("unreadable image", "b.jpg", "truncated"), 7
    data[1].left_out = (BrokenSample("region too small", "annotation 5 of image 1"),)
    evaluator = RegionClassification(toy.ToyModel(), toy.class_rows())

    images, found = evaluator.collect([*data, broken]).coverage
    assert images.sentence() == (
        "scored 3 of 5 images, left out 2: no region that counts 1, unreadable image 1"
    )
    assert images.left_out.names["unreadable image"] == ["b.jpg"]
    assert (found.scored, found.asked) == (6, 14)
    assert found.reasons == {"region too small": 1, "image left out": 7}
    assert evaluator.run([*data, broken]) == evaluator.run(data)


def test_data_without_masks_is_refused(toy):
    from dataclasses import replace

    data = [toy.Regions(4)[i] for i in range(4)]
    evaluator = RegionClassification(toy.ToyModel(), toy.class_rows())
    with pytest.raises(ValueError, match="masks are needed"):
        evaluator.run([replace(data[1], masks=None)])


def test_mistakes_are_told(toy):
    model, rows = toy.ToyModel(), toy.class_rows()
    with pytest.raises(ValueError, match=READOUTS[-1]):
        RegionClassification(model, rows, outputs=("box",))
    with pytest.raises(ValueError, match="rounding"):
        RegionClassification(model, rows, rounding="bf16")
    with pytest.raises(ValueError, match="nothing to evaluate"):
        RegionClassification(model, rows, outputs=(), crops=False)
    with pytest.raises(ValueError, match="crop_px"):
        RegionClassification(model, rows).run(toy.Regions(3, crops=False))
    with pytest.raises(ValueError, match="embed every class"):
        RegionClassification(model, rows[:2]).run(toy.Regions(9))
    with pytest.raises(ValueError, match="next to loading"):
        RegionClassification(model, rows, loading=EvaluationLoading(), workers=2)
    with pytest.raises(ValueError, match="batch_size=0"):
        RegionClassification(model, rows, batch_size=0)
    with pytest.raises(ValueError, match="dataset"):
        RegionClassification(model, rows).run(3)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    worker = Path(__file__).parents[2] / "workers" / "rank_worker.py"
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
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("how", ["own", "padded"])
def test_two_ranks_equal_one_process(toy, rank_worker, two_ranks, how):
    """Also with a sampler that pads ranks to equal counts: 11, 9 and 13 items do not split
    evenly."""
    alone = rank_worker.evaluate(toy.Regions(11), toy.Captioned(9), toy.Labelled(13))
    for rank in two_ranks:
        found = rank[how]
        assert torch.equal(found["labels"].sort().values, alone["labels"].sort().values)
        for metrics in ("regions", "retrieval", "zero_shot"):
            assert found[metrics] == alone[metrics]
        assert torch.equal(found["image_ids"], alone["image_ids"])
        for name, ranks in alone["ranks"].items():
            assert torch.equal(found["ranks"][name], ranks)


def test_evaluators_and_cli_start_without_heavy_libraries(two_ranks):
    """Report commands and worker processes need no open_clip, transformers, deepspeed or
    matplotlib."""
    assert two_ranks[0]["imported"] == []


def test_ranks_share_the_work(toy, rank_worker, two_ranks):
    alone = rank_worker.evaluate(toy.Regions(11), toy.Captioned(9), toy.Labelled(13))
    seen = [rank["own"]["seen"] for rank in two_ranks]
    assert sum(seen) == alone["seen"]
    assert min(seen) > 0
