"""Models that a file names, and folders that bring Python of their own."""

import json

import pytest
from flmm.adapters import load_lmm
from flmm.demo.lmm import build_demo_llava, word_tokenizer
from flmm.demo.model_files import save_weights, write_demo_model
from flmm.hub import check_foreign_source, read_or_explain


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache of the hub that holds nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["owner/name", "llava-hfx/model", "name", "Qwen"])
def test_an_unknown_model_of_the_hub_is_refused(hub_cache, name):
    with pytest.raises(ValueError, match=r"a\.json names .* of the hub, which was never used here"):
        check_foreign_source(name, "a.json")


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "Qwen/any", "./x", "/x", "~/x"])
def test_known_owners_and_paths_pass(hub_cache, name):
    assert check_foreign_source(name, "a.json") == name


def test_a_folder_of_this_machine_passes(hub_cache, tmp_path):
    assert check_foreign_source(str(tmp_path), "a.json") == str(tmp_path)


def test_the_fix_is_the_callers(hub_cache):
    with pytest.raises(ValueError, match=r"pass --lmm owner/name$"):
        check_foreign_source("owner/name", "a.json", fix="pass --lmm owner/name")


def test_a_folder_that_wants_to_run_python_is_refused_without_a_question(tmp_path, monkeypatch):
    model = build_demo_llava(word_tokenizer()).eval()
    save_weights(model, tmp_path / "w.safetensors", {"seconds": 1})
    folder, _ = write_demo_model(tmp_path / "lmm", weights=tmp_path / "w.safetensors")
    proof = tmp_path / "proof"
    (folder / "own.py").write_text(f"open({str(proof)!r}, 'w')\nclass Thing: pass\n")
    wants = {"auto_map": {"AutoImageProcessor": "own.Thing"}, "image_processor_type": "Thing"}
    for path in folder.glob("*processor_config.json"):
        content = json.loads(path.read_text())
        content.pop("image_processor", None)
        path.write_text(json.dumps({**content, **wants}))

    def asked(*_):
        raise AssertionError("a question")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(ValueError, match="run Python of its own, which flmm never does"):
        load_lmm(folder, dtype="float32")
    assert not proof.exists()


@pytest.fixture(scope="module")
def lmm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    model = build_demo_llava(word_tokenizer()).eval()
    save_weights(model, folder / "w.safetensors", {"seconds": 1})
    return write_demo_model(folder / "lmm", weights=folder / "w.safetensors")[0]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"auto_map": {"AutoConfig": "own.Thing"}}, "text_config wants to run Pyth"),
        ("vision_config", {"trust_remote_code": True}, "vision_config wants to run Python"),
        ("text_config", {"model_type": "own_llm"}, "text_config is a model of type 'own_llm'"),
        ("vision_config", {"model_type": ["x"]}, "vision_config is a model of type"),
        ("vision_config", {"backbone": "x/y", "use_pretrained_backbone": True}, "to download"),
        ("text_config", {"more": {"auto_map": {"a": "b"}}}, "more wants to run Python"),
        ("text_config", "own.Thing", "text_config is 'own.Thing', no configuration"),
    ],
)
def test_parts_of_a_model_that_bring_code_are_refused(lmm_folder, part, change, message):
    path = lmm_folder / "config.json"
    whole = path.read_text()
    config = json.loads(whole)
    changed = {**config[part], **change} if isinstance(change, dict) else change
    path.write_text(json.dumps({**config, part: changed}))
    try:
        with pytest.raises(ValueError, match=message):
            load_lmm(lmm_folder, dtype="float32")
    finally:
        path.write_text(whole)
    load_lmm(lmm_folder, dtype="float32")


def test_files_of_this_machine_are_read_without_bars(tmp_path):
    from transformers.utils import logging

    logging.enable_progress_bar()
    shown = []
    for name in (tmp_path, "owner/name"):
        read_or_explain(name, "it", lambda name: shown.append(logging.is_progress_bar_enabled()))
    assert shown == [False, True]
    assert logging.is_progress_bar_enabled()
