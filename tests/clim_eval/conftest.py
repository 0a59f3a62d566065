"""Modules beside the tests that several of them share."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TINY = "clim-eval-test-vit"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def load_beside(path: Path, name: str):
    """Import a file of the test folders by its path (pytest's importlib mode puts none of them on
    sys.path)."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def toy():
    return load_beside(HERE.parent / "helpers" / "toy.py", "toy")


@pytest.fixture(scope="session")
def rank_worker(toy):
    return load_beside(HERE.parent / "workers" / "rank_worker.py", "clim_eval_rank_worker")


@pytest.fixture(scope="session")
def tiny_towers():
    """The builders of tiny towers of tests/clim_models: build_eva(case), build_vit(), ..."""
    return load_beside(HERE.parent / "clim_models" / "conftest.py", "clim_models_tiny_towers")


@pytest.fixture(scope="session")
def model_options(tmp_path_factory):
    """Options of a tiny model that open_clip knows by name, with weights on disk."""
    import open_clip
    import torch
    from clim_models import create_model

    folder = tmp_path_factory.mktemp("model")
    (folder / f"{TINY}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(0)
    model = create_model(TINY)
    torch.save(model.clip.state_dict(), folder / "weights.pt")
    return ["--model", TINY, "--pretrained", str(folder / "weights.pt"), "--device", "cpu"]


@pytest.fixture(scope="session")
def detector_run(model_options, tmp_path_factory):
    """The run folder of a tiny F-ViT with a mask head, for cats (with boxes in training) and
    dogs."""
    import torch
    from clim_models import create_model
    from clim_models.detection import (
        DetectionRules,
        EnsembleRules,
        FViTOptions,
        ProposalRules,
        build_fvit,
        embed_class_set,
        save_detector,
    )

    torch.manual_seed(0)
    model = create_model(model_options[1], pretrained=model_options[3])
    options = FViTOptions(
        image_size=64,
        ensemble=EnsembleRules(0.1, 0.8, 75),
        detections=DetectionRules(score=0.0, overlap=0.5, per_image=4),
        testing_proposals=ProposalRules(before_nms=50, after_nms=20),
        blocks=(0, 0, 1, 1),
        channels=8,
        masks=True,
    )
    classes = embed_class_set(model, ["cat", "dog"], base=["cat"])
    folder = tmp_path_factory.mktemp("run") / "model"
    save_detector(build_fvit(model, classes, options), folder)
    return folder.parent
