"""The graph of a detector finds what the detector finds, for any size and vocabulary."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import (
    ClassSet,
    DetectionRules,
    EnsembleRules,
    FrozenClipOptions,
    FViTOptions,
    ImageFrame,
    ProposalRules,
    build_frozen_clip,
    build_fvit,
)
from clim_models.detection.batches import stack_images
from clim_models.graphs import C4Graph, DetectorGraph, export_detector, suppress_boxes
from tiny_detic import tiny_c4, tiny_cascade
from tiny_towers import build_resnet, build_vit
from torchvision.ops import batched_nms

NAMES = ["cat", "dog", "sofa"]
SHARED = {
    "image_size": 64,
    "ensemble": EnsembleRules(0.1, 0.8, 75),
    "channels": 8,
    "testing_proposals": ProposalRules(60, 50),
}


def tiny_detector(kind):
    torch.manual_seed(0)
    model = build_resnet() if kind == "resnet" else build_vit(layers=4)
    rows = F.normalize(torch.randn(3, model.embed_dim), dim=1)
    classes = ClassSet(NAMES, rows, [0, 1])
    if kind == "fvit":
        options = FViTOptions(**SHARED, blocks=(0, 1, 2, 3))
        return build_fvit(model, classes, options, background=rows.mean(0)).eval()
    blocks = None if kind == "resnet" else (0, 1, 2, 3)
    options = FrozenClipOptions(**SHARED, blocks=blocks, width=16)
    return build_frozen_clip(model, classes, options).eval()


@pytest.mark.parametrize("kind", ["fvit", "fvlm", "resnet"])
@pytest.mark.parametrize("grid", [(6, 8), (9, 7)])
@torch.no_grad()
def test_the_graph_finds_what_the_detector_finds(kind, grid):
    detector = tiny_detector(kind)
    graph = DetectorGraph(detector)
    pixels, rows, is_base = graph.examples(grid, 4)
    boxes, scores = graph(pixels, rows, is_base)
    rules = detector.rules.detections
    found = suppress_boxes(boxes.numpy(), scores.numpy(), score=rules.score)

    base = is_base.nonzero()[:, 0].tolist()
    other = detector.with_classes(ClassSet([*NAMES, "bed"], rows, base))
    size = tuple(pixels.shape[2:])
    images = (pixels.float() - graph.mean) / graph.std
    (expected,) = other(images, [ImageFrame(size, size, size)])
    assert len(expected.boxes) > 5
    torch.testing.assert_close(torch.from_numpy(found[1]), expected.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(found[0]), expected.boxes, atol=1e-2, rtol=0)
    assert found[2].tolist() == expected.labels.tolist()


@pytest.mark.parametrize("grid", [(6, 8), (9, 7)])
@torch.no_grad()
def test_the_graph_of_detic_finds_what_the_detector_finds(grid):
    torch.manual_seed(0)
    detector = tiny_c4(detections=DetectionRules(0.0, 0.5, 300)).eval()
    graph = C4Graph(detector)
    pixels, rows = graph.examples(grid, 4)
    boxes, scores = graph(pixels, rows)
    found = suppress_boxes(boxes.numpy(), scores.numpy(), score=0.0)

    size = tuple(pixels.shape[2:])
    images = stack_images([pixels[0]], detector.options.images)
    other = detector.with_classes(ClassSet([*NAMES, "bed"], rows, [0]))
    (expected,) = other(images, [ImageFrame(size, size, size)])
    assert len(expected.boxes) > 5
    torch.testing.assert_close(torch.from_numpy(found[1]), expected.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(found[0]), expected.boxes, atol=1e-2, rtol=0)
    assert found[2].tolist() == expected.labels.tolist()


@pytest.mark.parametrize("build", [lambda: tiny_detector("resnet"), tiny_c4])
def test_a_file_is_written_and_compared(tmp_path, build):
    """Only ONNX, and not on every tower: each file takes seconds."""
    pytest.importorskip("onnxruntime", reason="clim-models[onnx]")
    (report,) = export_detector(build().eval(), tmp_path, formats=["onnx"])
    assert report.path == tmp_path / "detector.onnx"
    assert report.difference < 1e-4
    assert len(report.sizes) == 3
    assert json.loads((tmp_path / "graphs.json").read_text())


def test_suppression_is_that_of_torchvision():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (40, 2))], 1).astype(np.float32)
    scores = rng.uniform(0, 1, (40, 3)).astype(np.float32)
    found = suppress_boxes(boxes, scores, score=0.3, overlap=0.4, per_image=20)

    rows, labels = (torch.from_numpy(scores) > 0.3).nonzero(as_tuple=True)
    values = torch.from_numpy(scores)[rows, labels]
    best = batched_nms(torch.from_numpy(boxes)[rows], values, labels, 0.4)[:20]
    assert found[1].tolist() == values[best].tolist()
    assert found[2].tolist() == labels[best].tolist()
    assert np.array_equal(found[0], boxes[rows[best].numpy()])
    assert [len(one) for one in suppress_boxes(boxes, scores, score=1.0)] == [0, 0, 0]


def test_other_detectors_and_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be exported.*export an F-ViT"):
        export_detector(tiny_cascade(), tmp_path)
    with pytest.raises(ValueError, match="choose from onnx, pt2"):
        export_detector(tiny_detector("fvit"), tmp_path, formats=["tflite"])
