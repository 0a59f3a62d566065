"""Exported graphs give the model's own cosines, at other sizes than those of the trace."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_models import Dense, Pooled
from clim_models.graphs import BoxGraph, DenseGraph, export_graphs
from clim_models.text import EmbeddedVocabulary, Vocabulary
from tiny_towers import build_vit

ONNX = ("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(autouse=True)
def no_traces():
    """Torch logs every step of an export where somebody listens, as pytest does."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("tower", ["vit", "eva", "resnet", "timm_siglip", "timm_convnext"])
def test_graphs_are_the_requests_of_the_model(towers, tower):
    model = towers[tower]()
    pixels, boxes, classes = BoxGraph(model).examples((3, 4), (2, 4, 3))
    images = model.normalize_pixels(pixels)
    own = [boxes[boxes[:, 0] == number, 1:] for number in range(2)]
    with torch.no_grad():
        dense = DenseGraph(model)(pixels, classes)
        found = BoxGraph(model)(pixels, boxes, classes)
        features = model.encode(images, [Dense(), Pooled("boxes")], boxes=own)

    expected = torch.einsum("kc,bchw->bkhw", classes, features[Dense()])
    torch.testing.assert_close(dense, expected, atol=1e-5, rtol=0)
    order = torch.argsort(boxes[:, 0], stable=True)
    torch.testing.assert_close(
        found[order], features[Pooled("boxes")] @ classes.T, atol=1e-5, rtol=0
    )


# Torch 2.10 writes a guard into a ViT's file that refuses a single picture.
ONE_PICTURE = pytest.mark.xfail(
    torch.__version__ < "2.11", reason="torch 2.10", raises=ValueError, strict=True
)


@pytest.mark.parametrize("tower", [pytest.param("vit", marks=ONE_PICTURE), "eva"])
def test_torch_export_takes_other_sizes(towers, tower, tmp_path):
    model = towers[tower]()
    (report,) = export_graphs(model, tmp_path, graphs=["boxes"], formats=["pt2"])
    assert report.difference < 1e-5
    # The size of the trace, two others, and the native one.
    assert len({*report.sizes}) == 4
    assert tuple(model.image_size) in report.sizes


def test_onnx_runs_without_this_package(tmp_path):
    for name in ONNX:
        pytest.importorskip(name, reason="clim-models[onnx] is not installed")
    import onnxruntime

    model = build_vit(layers=1)
    rows = F.normalize(torch.randn(2, 24), dim=-1)
    words = EmbeddedVocabulary(Vocabulary.of(["cat", "red car"]), rows, rows[:0])
    reports = export_graphs(model, tmp_path, formats=["onnx"], vocabulary=words)

    assert [report.path.name for report in reports] == ["dense.onnx", "boxes.onnx"]
    assert max(report.difference for report in reports) < 1e-5
    about = json.loads((tmp_path / "graphs.json").read_text())
    assert about["classes"] == ["cat", "red car"]
    assert about["stride"] == 8
    assert about["files"]["dense.onnx"]["tried_px"][0] == [40, 56]
    classes = np.load(tmp_path / "classes.npy")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 24, 88), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "dense.onnx")
    (found,) = session.run(None, {"pixels": pixels, "classes": classes})
    with torch.no_grad():
        dense = model.encode_dense(model.normalize_pixels(torch.from_numpy(pixels)))
    expected = torch.einsum("kc,bchw->bkhw", rows, dense)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert found.shape == (1, 2, 3, 11)


def test_a_file_that_differs_is_refused(tmp_path, monkeypatch):
    model = build_vit(layers=1)

    def runner(path, names):
        graph = DenseGraph(model)
        return lambda inputs: [graph(*inputs) + 2e-4]

    monkeypatch.setattr("clim_models.graphs.writing.open_file", runner)
    monkeypatch.setattr("clim_models.graphs.writing.trace", lambda *arguments: None)
    monkeypatch.setattr("clim_models.graphs.writing.write_graph", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"differs from the model by 0\.0002 in a cosine"):
        export_graphs(model, tmp_path, graphs=["dense"], formats=["pt2"])


def test_a_file_that_refuses_a_size_is_refused(tmp_path, monkeypatch):
    def refuse(inputs):
        raise AssertionError("Guard failed: pixels.size()[0] != 1\nand more")

    monkeypatch.setattr("clim_models.graphs.writing._open_program", lambda path: refuse)
    monkeypatch.setattr("clim_models.graphs.writing.trace", lambda *arguments: None)
    monkeypatch.setattr("clim_models.graphs.writing.write_graph", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"does not run with pixels of shape \(2, 3.*\[0\] != 1\)"):
        export_graphs(build_vit(layers=1), tmp_path, graphs=["dense"], formats=["pt2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graphs": ["masks"]}, "choose from dense, boxes"),
        ({"formats": []}, "choose from onnx, pt2"),
    ],
)
def test_unknown_graphs_and_formats_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_graphs(build_vit(), tmp_path, **options)


def test_only_full_precision_is_exported(tmp_path):
    with pytest.raises(ValueError, match="precision='fp32'"):
        export_graphs(build_vit().to(torch.bfloat16), tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("clim_models.graphs.writing.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install onnx"):
        export_graphs(build_vit(), tmp_path)
