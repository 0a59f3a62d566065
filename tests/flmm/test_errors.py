"""Mistakes of users, by command: each ends with status 2 and a sentence that says what to do."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from flmm import hub
from flmm.adapters import load_lmm
from flmm.attention import rows as attention
from flmm.commands.main import main
from flmm.dialogue.answers import ask, ground_answer
from flmm.grounded import load_grounded
from flmm.pictures.files import read_image
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_expressions
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture, sample


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with lmm, sam, heads and images, whole and broken."""
    folder = tmp_path_factory.mktemp("errors")
    save_tiny_grounded(folder)
    picture(40, 56).save(folder / "ok.png")
    break_images(folder)
    break_heads(folder, folder / "heads" / "heads.safetensors")
    break_models(folder)
    return folder


def break_images(folder: Path) -> None:
    picture(40, 56).save(folder / "whole.jpg")
    (folder / "half.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:400])
    (folder / "text.png").write_text("no picture")


def break_heads(folder: Path, heads: Path) -> None:
    tensors = load_file(heads)
    (folder / "text.pth").write_text("hello")
    torch.save(tensors, folder / "heads.pth")
    (folder / "cut.pth").write_bytes((folder / "heads.pth").read_bytes()[:3000])
    (folder / "cut.safetensors").write_bytes(heads.read_bytes()[:3000])
    torch.save(
        {"visual.conv1.weight": torch.zeros(3), "logit_scale": torch.zeros(1)}, folder / "clip.pth"
    )
    torch.save({k: v for k, v in tensors.items() if k != "text_proj.bias"}, folder / "missing.pth")


def break_models(folder: Path) -> None:
    for name, file in (
        ("no_tokenizer", "tokenizer.json"),
        ("no_processor", "preprocessor_config.json"),
    ):
        copied = shutil.copytree(folder / "lmm", folder / name)
        for found in (file, file.replace(".json", "_config.json")):
            (copied / found).unlink(missing_ok=True)
    (shutil.copytree(folder / "lmm", folder / "no_weights") / "model.safetensors").unlink()
    for kind in ("lmm", "sam"):
        weights = shutil.copytree(folder / kind, folder / f"cut_{kind}") / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:3000])
    lacking = shutil.copytree(folder / "sam", folder / "lacking_sam") / "model.safetensors"
    tensors = load_file(lacking)
    del tensors[min(tensors)]
    save_file(tensors, lacking, metadata={"format": "pt"})
    other = shutil.copytree(folder / "lmm", folder / "other_family") / "config.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "model_type": "blip_3000"}))


def command(place, *, image="ok.png", phrases=("a red car",), more=()) -> list[str]:
    named = ["--checkpoint", str(place / "heads"), "--device", "cpu", "-o", str(place / "out.png")]
    return ["ground", str(place / image), *phrases, *named, *(str(part) for part in more)]


def explained(arguments, capsys) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_what_is_whole_works(place, capsys):
    assert main(command(place)) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "none.png"}, "there is no image"),
        ({"image": "half.jpg"}, "half.jpg is damaged or no image"),
        ({"image": "text.png"}, "pass a whole JPEG, PNG or WebP file"),
        ({"phrases": ["a car", " "]}, "phrase 2 of 2 is empty: skip it"),
        ({"more": ["-o", "out.gif"]}, "end it with .jpg, .png or .webp"),
        ({"more": ["--device", "gpu"]}, "device='gpu' is not known: use cpu"),
        ({"more": ["--device", "cuda:99"]}, "device='cuda:99', but torch sees"),
    ],
)
def test_mistakes_in_the_command(place, capsys, arguments, message):
    assert message in explained(command(place, **arguments), capsys)


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--checkpoint", "text.pth", "is not a checkpoint (it starts with b'hello')"),
        ("--checkpoint", "cut.pth", "is truncated or damaged"),
        ("--checkpoint", "cut.safetensors", "is truncated or damaged"),
        (
            "--checkpoint",
            "clip.pth",
            "there is no mask head among ['logit_scale', 'visual.conv1.weight']",
        ),
        ("--checkpoint", "missing.pth", "missing (1): text_proj.bias"),
        ("--checkpoint", "none.pth", "there are no heads"),
        ("--lmm", "no_tokenizer", "cannot read the tokenizer of"),
        ("--lmm", "no_processor", "cannot read the image processor of"),
        ("--lmm", "no_weights", "cannot read the weights of"),
        ("--lmm", "cut_lmm", "cannot read the weights of"),
        (
            "--lmm",
            "other_family",
            "no adapter for LMMs of type 'blip_3000'; supported are ",
        ),
        ("--lmm", "nowhere", "there is no folder"),
        ("--lmm", "ok.png", "is a file: pass the folder of an LMM"),
        ("--sam", "cut_sam", "cannot read the weights of"),
        ("--sam", "lacking_sam", "lacks 1 weights, such as"),
        ("--sam", "lmm", "is no SAM, but a model of type 'llava'"),
        ("--sam", "clip.pth", "is no whole SAM"),
        ("--sam", "none.pth", "there is no SAM"),
        ("--sam", "nowhere", "there is no folder"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mistakes_in_the_files(place, capsys, option, name, message):
    named = {"--lmm": place / "lmm", "--sam": place / "sam", option: place / name}
    more = [part for pair in named.items() for part in pair]
    said = explained(command(place, more=more), capsys)
    assert message in said
    assert (
        ": pass " in said
        or "; pass " in said
        or "Use weights" in said
        or "again" in said
        or "to flmm.register" in said
    )


def test_a_text_beyond_the_context_says_how_much_fits(place, capsys):
    said = explained(command(place, phrases=["a big car", "a dog"] * 450), capsys)
    tokens, context, fitting, excess = map(
        int,
        re.search(
            r"(\d+) tokens of prompt, image and answer do not fit the context of (\d+) \(the first (\d+) of its 900 "
            r"phrases would\); shorten the text by (\d+) tokens",
            said,
        ).groups(),
    )
    assert tokens - context == excess
    lmm = load_lmm(place / "lmm", dtype="float32")
    image = lmm.family.prepare(picture(40, 56))

    def expanded(count):
        expressions = (["a big car", "a dog"] * 450)[:count]
        text = tokenize_expressions(lmm.tokenizer, lmm.family.style.prompt(DESCRIBE), expressions)
        return lmm._expand_image_tokens(text, lmm.family.layout(image))

    assert expanded(fitting - 1).phrases == fitting - 1
    for count in (fitting + 1, 900):
        with pytest.raises(ValueError, match=f"the first {fitting} of its {count}"):
            expanded(count)


def test_a_place_that_cannot_be_written_is_told_before_loading(
    place, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("")
    said = explained(command(place, more=["-o", tmp_path / "file" / "out.png"]), capsys)
    assert "cannot write into" in said
    assert "loading" not in said
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot write" in explained(command(place, more=["-o", tmp_path / "out.png"]), capsys)


def test_a_json_of_the_user_is_not_replaced(place, tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"mine": 1}')
    said = explained(command(place, more=["-o", tmp_path / "a.png"]), capsys)
    assert "a.json is a file of yours, not of masks: name another place" in said
    assert "loading" not in said
    (tmp_path / "a.json").unlink()
    for _ in range(2):  # masks may be replaced
        assert main(command(place, more=["-o", tmp_path / "a.png"])) == 0, capsys.readouterr().err


def test_special_tokens_are_ordinary_text(place):
    lmm = load_lmm(place / "lmm", dtype="float32")
    text = tokenize_expressions(lmm.tokenizer, "a", ["a </s> dog"])
    end = lmm.tokenizer.eos_token_id
    assert end not in text.input_ids.tolist()
    with pytest.raises(ValueError, match="holds the LMM's own token '</s>': leave it out"):
        ask(lmm, picture(40, 56), "what </s> is it")


def test_a_hub_that_cannot_be_reached(place, capsys, monkeypatch):
    asked = []

    def fail(self, name, timeout):
        asked.append(timeout)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    hub._hub_fault.cache_clear()
    for option in ("--lmm", "--sam"):
        said = explained(command(place, more=[option, "owner/name"]), capsys)
        assert (
            "the hub cannot be reached (no route): download it where there is a network (`hf "
            "download" in said
        )
    assert asked == [hub.ASK_S]  # once, and not for long
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda name, file: str(place / file)
    )
    assert hub.hub_options("owner/name", what="an LMM") == {"local_files_only": True}
    hub._hub_fault.cache_clear()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, timeout: None)
    assert hub.hub_options("owner/name", what="an LMM") == {}
    hub._hub_fault.cache_clear()


def test_transformers_that_are_too_old(place, capsys, monkeypatch):
    monkeypatch.setattr("flmm.transformers_compat.version", lambda name: "4.40.1")
    assert "transformers 4.40.1 is too old" in (said := explained(command(place), capsys))
    assert "run: pip install 'transformers>=5.6'" in said


@pytest.mark.parametrize("asked", ["eager", "flash_attention_2", "no_such_attention"])
def test_attention_of_the_configuration_does_not_matter(place, tmp_path, asked):
    config = shutil.copytree(place / "lmm", tmp_path / "lmm") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_attn_implementation": asked}))
    found, expected = (
        load_lmm(path, dtype="float32") for path in (tmp_path / "lmm", place / "lmm")
    )
    one = sample(expected, picture(40, 56), phrases=1)
    torch.testing.assert_close(found([one])[0].maps, expected([one])[0].maps)


@pytest.mark.parametrize("chosen", ["eager", "sdpa"])
def test_attention_changed_after_loading_is_never_silently_empty(place, chosen):
    lmm = load_lmm(place / "lmm", dtype="float32")
    lmm.model.set_attn_implementation(chosen)
    with pytest.raises(
        ValueError,
        match=rf"attn_implementation='{chosen}', whose attention cannot be captured; call",
    ):
        lmm([sample(lmm, picture(40, 56), phrases=1)])
    attention.use_rows_attention(lmm.language_model)
    assert lmm([sample(lmm, picture(40, 56), phrases=1)])[0].maps.sum() > 0


def test_a_phrase_that_is_not_in_the_answer(place):
    model = load_grounded(
        place / "lmm",
        sam=place / "sam",
        heads=place / "heads" / "heads.safetensors",
        dtype="float32",
    )
    answer = ask(model.lmm, picture(40, 56), "a dog", max_new_tokens=4)
    with pytest.raises(ValueError, match=r"a green zebra.* is not in"):
        ground_answer(model, picture(40, 56), answer, phrases=["a green zebra"])


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "P", "1", "I;16", "turned", "one"])
def test_images_of_every_kind(place, tmp_path, capsys, mode):
    image = picture(40, 56)
    path = tmp_path / ("image.jpg" if mode in ("CMYK", "turned") else "image.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    elif mode == "turned":
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image = image.resize((1, 1)) if mode == "one" else image.convert(mode)
        image.save(path)
    found = read_image(path)
    assert found.mode == "RGB"
    expected = {"turned": (image.height, image.width), "one": (1, 1)}.get(
        mode, (image.width, image.height)
    )
    assert found.size == expected
    if mode == "I;16":
        grey = np.asarray(picture(40, 56).convert("L"), dtype=int)
        assert abs(np.asarray(found, dtype=int)[..., 0] - grey).max() <= 1  # not clipped to white
    if mode == "one":
        assert main(command(place, image=path)) == 0, capsys.readouterr().err
