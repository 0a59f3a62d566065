"""Mini-Gemini in its authors' folders: where the towers lie, parts, and what is refused."""

import json
import shutil

import pytest
import torch
from flmm import load_lmm
from flmm.adapters.authors import mgm
from flmm.adapters.authors.mgm_vision import MiniGeminiSizes
from flmm.adapters.authors.weights import read_weights
from golden_lmms import (
    CASES,
    authors_folder,
    first_of,
    golden_lmm,
    in_parts,
    read_authors,
    sample_of,
)
from safetensors.torch import save_file
from tiny_lmms import picture

MGM = [name for name in CASES if name.startswith("mgm")]
GEMMA = [name for name in MGM if "gemma" in name]
CLIP, FINE = "model.vision_tower.vision_tower.", "model.vision_tower_aux.vision_"


@pytest.fixture(params=MGM)
def case(golden, request):
    return golden("forward", f"flmm/{request.param}")


def maps_of(lmm, case):
    return lmm([sample_of(case, first_of(case))])[0].maps


def test_golden_folder_in_parts(case, tmp_path):
    folder = authors_folder(case, tmp_path / "lmm")
    in_parts(folder)
    assert torch.equal(maps_of(read_authors(case, folder), case), maps_of(golden_lmm(case), case))


def test_golden_towers_in_their_own_folders(case, tmp_path):
    """The folder of the language model has no tensors of the towers; theirs are elsewhere."""
    folder = authors_folder(case, tmp_path / "work" / "MGM" / "lmm")
    # Copies: older safetensors maps the file, which is written anew.
    tensors = {k: v.clone() for k, v in read_weights(folder).items()}
    clip = {k.removeprefix(CLIP): v for k, v in tensors.items() if k.startswith(CLIP)}
    fine = {
        f"visual.trunk.{k.removeprefix(FINE)}": v for k, v in tensors.items() if k.startswith(FINE)
    }
    rest = {k: v for k, v in tensors.items() if not k.startswith((CLIP, FINE))}
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})

    zoo = tmp_path / "zoo"  # as the authors have it: next to work/, not in the model's folder
    shutil.move(folder / "zoo", zoo)
    positions = torch.arange(len(clip["vision_model.embeddings.position_embedding.weight"]))
    text = {"text_model.norm": torch.ones(3), "logit_scale": torch.ones(1)}
    numbers = {"vision_model.embeddings.position_ids": positions[None]}
    torch.save({**clip, **text, **numbers}, zoo / "clip" / "pytorch_model.bin")
    (zoo / "convnext").mkdir()
    (zoo / "convnext" / "open_clip_config.json").write_text("{}")
    extra = {
        "visual.trunk.head.norm.weight": torch.ones(3),
        "visual.head.proj.weight": torch.ones(3),
    }
    torch.save({**fine, **extra, **text}, zoo / "convnext" / "open_clip_pytorch_model.bin")
    assert torch.equal(maps_of(read_authors(case, folder), case), maps_of(golden_lmm(case), case))

    shutil.rmtree(zoo / "convnext")
    with pytest.raises(
        FileNotFoundError, match=r"no folder zoo/convnext, which mm_vision_tower_aux"
    ):
        read_authors(case, folder)


def test_golden_folder_loads_as_users_have_it(case, tmp_path):
    lmm = load_lmm(authors_folder(case, tmp_path / "lmm"), dtype="float32")
    expected = golden_lmm(case)
    assert lmm.config.to_dict()["model_type"] == expected.config.model_type
    assert torch.equal(maps_of(lmm, case), maps_of(expected, case))
    text = lmm.tokenizer.encode(lmm.family.style.prompt("What is it?"))
    image = lmm.family.prepare(picture(60, 90))
    answer = lmm.generate([image], torch.tensor(text), max_new_tokens=4)
    assert answer.maps.shape[1] * lmm.family.grids == lmm.map_channels
    assert load_lmm(tmp_path / "lmm").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "prefix",
    [
        CLIP,
        f"{FINE}stem",
        "model.vlm_uni_val",
        "model.vlm_uni_aux",
        "model.mm_projector",
        "model.layers",
    ],
)
def test_golden_folder_without_some_weights_is_refused(case, tmp_path, prefix):
    folder = authors_folder(case, tmp_path / "lmm")
    tensors = read_weights(folder)
    last = sorted(name for name in tensors if name.startswith(prefix))[-1]
    broken = {name: value for name, value in tensors.items() if name != last}
    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((ValueError, FileNotFoundError), match=r"[Nn]ot those of|has no|no weights"):
        read_authors(case, folder)


def test_golden_folder_with_foreign_weights_or_projector_is_refused(case, tmp_path):
    folder = authors_folder(case, tmp_path / "lmm")
    tensors = read_weights(folder)
    more = {**tensors, "model.surprise.weight": torch.ones(3)}
    save_file(more, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"unexpected \['model.surprise.weight'\]"):
        read_authors(case, folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    about = json.loads(path.read_text())
    deeper = 1 + sum(name.startswith("model.mm_projector.") for name in tensors) // 2
    for kind, message in (
        ("resampler", "'resampler' of .* is not linear or mlpNx_gelu"),
        (f"mlp{deeper}x_gelu", f"not those of a projector mlp{deeper}x_gelu"),
    ):
        path.write_text(json.dumps({**about, "mm_projector_type": kind}))
        with pytest.raises(ValueError, match=message):
            read_authors(case, folder)


@pytest.mark.parametrize(("hidden", "own"), [("gelu", None), ("gelu_pytorch_tanh", "gelu")])
@pytest.mark.parametrize("family", GEMMA)
def test_golden_gemma_has_the_tanh_form_of_gelu_unless_it_says_more(golden, family, hidden, own):
    case = golden("forward", f"flmm/{family}")
    raw = {"model_type": "mgm_gemma", **case.meta["llm_config"], "hidden_act": hidden}
    raw |= {} if own is None else {"hidden_activation": own}
    tensors = {
        k: v
        for k, v in read_weights(case.folder, ["lmm.safetensors"]).items()
        if k.startswith(("model.layers", "model.embed", "model.norm"))
    }
    model = mgm.language_model(raw, tensors, dtype=torch.float32, source=case.folder)
    assert model.config.hidden_act == (own or "gelu_pytorch_tanh")


def test_sizes_that_no_release_has_are_refused():
    for tiles, whole in ((2, False), (1, True), (0, False)):
        with pytest.raises(ValueError, match=r"Mini-Gemini has 1 and False, or \(HD\) 2 and True"):
            MiniGeminiSizes(28, 7, 128, tiles=tiles, whole=whole)
