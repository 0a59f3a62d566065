"""Folders from elsewhere choose among what this machine knows; nothing of theirs is run."""

import json
import zipfile

import open_clip
import pytest
import torch
from clim_models import check_foreign_name, create_model, name_of_export
from clim_models.checkpoints import read_checkpoint
from clim_models.foreign import check_foreign_config
from clim_models.text.tokenizer import tokenizer_for
from safetensors.torch import save_file

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 200, "width": 32, "heads": 2, "layers": 1}


@pytest.mark.parametrize(
    "name",
    [
        "local-dir:kf/foreign/model",
        "hf-hub:owner/name",
        "hf_hub:owner/name",
        "/abs/model",
        "../model",
        "ViT-B-16/../../x",
        "pipe:touch x",
        ["ViT-B-16"],
        {"a": 1},
        7,
    ],
)
def test_names_from_files(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"name": name}))
    with pytest.raises(ValueError, match="look at it, and if you trust it, say so with --trust"):
        name_of_export(tmp_path)


@pytest.mark.parametrize("name", ["ViT-B-16", "EVA02-B-16", "clim-tiny"])
def test_known_names_pass(name):
    assert check_foreign_name(name, "a file") == name


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "\ufeff"])
def test_no_json_is_a_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="is no JSON"):
        name_of_export(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null"])
def test_another_value_is_a_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="holds no object"):
        name_of_export(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"name": ""}'])
def test_no_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert name_of_export(tmp_path) is None


def test_trusted_names_pass(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "local-dir:x"}')
    assert name_of_export(tmp_path, trusted=True) == "local-dir:x"


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("text_cfg", "hf_model_name", "evil/tower"),
        ("text_cfg", "hf_model_name", "/abs/tower"),
        ("text_cfg", "hf_tokenizer_name", "evil/words"),
        ("text_cfg", "hf_tokenizer_name", "../words"),
        ("text_cfg", "tokenizer_kwargs", {"tokenizer_file": "/etc/passwd"}),
        ("text_cfg", "tokenizer_kwargs", {"subfolder": ".."}),
        ("vision_cfg", "timm_model_name", "hf-hub:evil/tower"),
        ("vision_cfg", "timm_model_name", "hf_hub:evil/tower"),
        ("vision_cfg", "timm_model_name", "local-dir:/abs"),
        ("vision_cfg", "pretrained_cfg", {"url": "http://evil/x.pth"}),
        ("vision_cfg", "checkpoint_path", "/abs/x.pth"),
        ("multimodal_cfg", "anything", 1),
    ],
)
def test_configurations_from_elsewhere(section, option, value):
    config = {"embed_dim": 32, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}
    config.setdefault(section, {})[option] = value
    with pytest.raises(ValueError, match=r"open_clip.add_model_config\(FILE\)"):
        check_foreign_config(config, "local-dir:x")


def test_configurations_of_open_clip_pass():
    for name in open_clip.list_models():
        check_foreign_config(open_clip.get_model_config(name), name)


def test_a_tokenizer_of_a_folder_runs_nothing(tmp_path):
    pytest.importorskip("transformers")
    proof = tmp_path / "proof"
    text = {
        **TEXT,
        "hf_tokenizer_name": "roberta-base",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    save_file(open_clip.CLIP(32, VISION, TEXT).state_dict(), tmp_path / "model.safetensors")
    model = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": text}
    about = {"model_cfg": model, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    words = {"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": ["words.Words", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(words))
    (tmp_path / "words.py").write_text(f"open({str(proof)!r}, 'w').write('x')\nclass Words: pass\n")

    name = f"local-dir:{tmp_path}"
    created = create_model(name)
    with pytest.raises((ValueError, OSError)):
        tokenizer_for(name, created.clip)
    assert not proof.exists()


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * (100 << 20))
    with pytest.raises(ValueError, match=r"unpacks to 0.1 GB, far more than its size"):
        read_checkpoint(path)


def test_a_pickle_with_another_ending_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "model.safetensors")


SOUND = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "open_clip_config.json of local-dir.* is damaged"),
        ([1], "open_clip_config.json of local-dir.* is damaged"),
        ({"model_cfg": {**SOUND, "vision_cfg": [1]}}, "as vision_cfg, no options"),
        ({"model_cfg": {**SOUND, "text_cfg": None}}, "as text_cfg, no options"),
        (
            {"model_cfg": {**SOUND, "text_cfg": {**TEXT, "tokenizer_kwargs": [{}]}}},
            "has tokenizer options",
        ),
        ({"model_cfg": {**SOUND, "vision_cfg": {**VISION, "width": "big"}}}, "cannot be built"),
        ({"model_cfg": {**SOUND, "embed_dim": "x"}}, "cannot be built"),
        ({"model_cfg": SOUND, "preprocess_cfg": {**PIXELS, "std": [1, 0, 1]}}, "pixel statistics"),
        ({"model_cfg": SOUND, "preprocess_cfg": {**PIXELS, "mean": "abc"}}, "pixel statistics"),
    ],
)
def test_a_damaged_folder_of_open_clip_is_one_line(tmp_path, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        create_model(f"local-dir:{tmp_path}")
