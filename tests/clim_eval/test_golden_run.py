"""The evaluator end to end against the original one, on its tiny EVA model and synthetic images."""

import numpy as np
import pytest
import torch
from clim_data import PanopticRegions
from clim_eval.evaluators.regions import RegionClassification
from golden_pixels import same_pillow

NAMES = {"boxes": "rois", "masks": "maskpool", "crops": "crops"}


@pytest.fixture(scope="module")
def run(golden, tiny_towers):
    """(evaluator, rows) with and without antialias of the masks."""
    case = golden("case07_eval_run")
    model = tiny_towers.build_eva(
        golden(case.meta["weights_from"].split(".")[0]), partial_patches="crop"
    )
    folder = case.folder / "case07_data"
    config = case.meta["config"]

    def evaluate(antialias):
        data = PanopticRegions(
            folder / "images",
            folder / "panoptic.json",
            folder / "panoptic",
            image_px=config["det_image_size"],
            stride=config["downsample_factor"],
            crop_px=config["crop_size"],
            antialias=antialias,
            resize="pil",
            stuff_box="inclusive",
        )
        evaluator = RegionClassification(
            model, case.tensor("in/embeddings"), rounding="fp16", batch_size=2
        )
        return evaluator, evaluator.collect(data)

    return {antialias: evaluate(antialias) for antialias in (True, False)}


@pytest.mark.parametrize(
    "readout",
    [pytest.param(name, marks=same_pillow if name == "crops" else ()) for name in NAMES],
)
def test_golden_predictions_of_every_region(golden, run, readout):
    case, (_, rows) = golden("case07_eval_run"), run[True]
    np.testing.assert_array_equal(rows.labels, case.arrays["out/labels"])
    np.testing.assert_array_equal(rows.is_thing, case.arrays["out/is_thing"] > 0)
    np.testing.assert_allclose(rows.areas, case.arrays["out/box_sizes"], rtol=1e-5)
    similarity = case.arrays[f"out/similarity_{NAMES[readout]}"]
    np.testing.assert_allclose(rows.similarities[readout], similarity, atol=5e-5)
    correct = rows.ranks[readout][:, None] == np.arange(case.arrays["out/correct_rois"].shape[1])
    np.testing.assert_array_equal(correct, case.arrays[f"out/correct_{NAMES[readout]}"] > 0)


def test_golden_masks_without_antialias(golden, run):
    case, (_, rows) = golden("case07_eval_run"), run[False]
    similarity = case.arrays["out/similarity_maskpool_no_antialias"]
    np.testing.assert_allclose(rows.similarities["masks"], similarity, atol=5e-5)
    correct = case.arrays["out/correct_maskpool_no_antialias"] > 0
    # A mask that covers no patch scores zero for every class. The original lets torch.topk break
    # that tie in whatever order it likes; here such a region is never right.
    tied = similarity == 0
    assert not tied.all()
    found = rows.ranks["masks"][:, None] == np.arange(correct.shape[1])
    np.testing.assert_array_equal(found[~tied], correct[~tied])
    assert (rows.ranks["masks"][tied] == len(case.arrays["in/embeddings"]) - 1).all()
    assert not np.array_equal(rows.similarities["masks"], run[True][1].similarities["masks"])


def test_golden_metrics(golden, run):
    case, (evaluator, rows) = golden("case07_eval_run"), run[True]
    metrics = evaluator.summarize(rows)
    ours = {original: name for name, original in NAMES.items()}
    found = 0
    for key, expected in case.arrays.items():
        if key.startswith("out/metric/"):
            readout, group, kind = key.removeprefix("out/metric/").split(".")
            value = metrics[f"{ours[readout]}.{group}.{kind.replace('macc', 'mAcc')}"]
            assert value == pytest.approx(float(expected), abs=1e-9), key
            found += 1
    assert found == len(case.meta["metrics"])
    assert torch.is_tensor(evaluator.class_embeddings)
