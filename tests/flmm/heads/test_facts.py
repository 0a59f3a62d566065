"""A file of heads says how they were trained; loading builds that, or refuses."""

import json

import pytest
import torch
from clim_models import UNetHead
from flmm.grounded import GroundedLMM, load_grounded
from flmm.heads.facts import KEY, portable_source, read_facts, source_of
from flmm.refiners.sam.refiner import SamRefiner
from safetensors.torch import load_file, save_file
from tiny_grounding import batch_of, tiny_grounded, tiny_sam, word_tokenizer
from tiny_lmms import tiny_lmm


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(model with nothing at its default, folder with sam and heads.safetensors)."""
    folder = tmp_path_factory.mktemp("heads")
    sam = tiny_sam()
    sam.save_pretrained(folder / "sam")
    lmm = tiny_lmm("llava")
    lmm.tokenizer = word_tokenizer()
    head = UNetHead(lmm.map_channels, base=2, stages=3, normalize_input=False, upsample_input=None)
    model = GroundedLMM(
        lmm, head, SamRefiner(sam, use_text=False, multimask=True), merge="max"
    ).eval()
    model.save_heads(folder / "heads.safetensors")
    return model, folder


def masks(model):
    batch = batch_of(model, [4], [2])
    with torch.no_grad():
        features = model.lmm([item.sample for item in batch.items], merge=model.merge)
        return model.ground(features, model.sam.embed([item.image for item in batch.items]))[0]


def test_a_file_of_heads_is_enough_to_build_them(saved):
    model, folder = saved
    again = load_grounded(model.lmm, sam=folder / "sam", heads=folder / "heads.safetensors")
    assert again.facts() == model.facts() == read_facts(folder / "heads.safetensors")
    assert (again.merge, again.mask_head.upsample_input, again.sam.multimask) == ("max", None, True)
    torch.testing.assert_close(masks(again).refined, masks(model).refined)
    assert model.heads.facts() == model.facts()  # what a training saves


def test_another_merge_is_refused(saved):
    model, folder = saved
    with pytest.raises(ValueError, match=r"trained with merge='max', not 'mean': use merge='max'"):
        load_grounded(
            model.lmm, sam=folder / "sam", heads=folder / "heads.safetensors", merge="mean"
        )
    sam = SamRefiner.from_pretrained(folder / "sam")
    head = UNetHead(
        model.lmm.map_channels, base=2, stages=3, normalize_input=False, upsample_input=None
    )
    with pytest.raises(
        ValueError, match=r"(?s)trained for another model:\n  merge: max there, mean here.*use_text"
    ):
        GroundedLMM(model.lmm, head, sam).load_heads(folder / "heads.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmm": "llava_next on mistral"}, "lmm: llava_next on mistral there, llava on llama here"),
        ({"sam_image_encoder": "7 parameters"}, "sam_image_encoder: 7 parameters there"),
        ({"rotation": 1}, r"says \['rotation'\], which this flmm does not know"),
        ({"mask_head": {"depth": 1}}, r"says \['depth'\]"),
    ],
)
def test_heads_of_other_models_are_refused(saved, tmp_path, changes, message):
    model, folder = saved
    path = tmp_path / "heads.safetensors"
    facts = json.dumps({**model.facts(), **changes})
    save_file(load_file(folder / "heads.safetensors"), path, metadata={KEY: facts})
    with pytest.raises(ValueError, match=message):
        load_grounded(model.lmm, sam=folder / "sam", heads=path)


def test_heads_of_an_lmm_with_other_maps_are_refused(saved, tmp_path):
    model, folder = saved
    other = tiny_grounded("llava_next_vicuna")
    path = other.save_heads(tmp_path / "other.safetensors")
    count = other.lmm.map_channels
    with pytest.raises(
        ValueError,
        match=rf"another LMM: its mask head takes {count} maps .* has {count // 2}\. Use",
    ):
        load_grounded(model.lmm, sam=folder / "sam", heads=path)


def test_files_without_facts(saved, tmp_path):
    model, folder = saved
    tensors = load_file(folder / "heads.safetensors")
    save_file(tensors, tmp_path / "heads.safetensors")
    options = {"sam": folder / "sam", "heads": tmp_path / "heads.safetensors"}
    found = load_grounded(model.lmm, **options)
    assert (found.merge, len(found.mask_head.encoder)) == ("mean", 3)
    assert load_grounded(model.lmm, **options, merge="max").merge == "max"
    (tmp_path / "grounding.json").write_text(json.dumps({"lmm": "x", "merge": "max"}))
    assert load_grounded(model.lmm, **options).merge == "max"
    (tmp_path / "grounding.json").write_text("{")
    with pytest.raises(ValueError, match="export the run again"):
        load_grounded(model.lmm, **options)

    torch.save(tensors, tmp_path / "released.pth")
    assert (
        load_grounded(model.lmm, sam=folder / "sam", heads=tmp_path / "released.pth").merge
        == "mean"
    )


def test_sources_move_with_the_run(tmp_path):
    model = tmp_path / "project" / "run" / "model"
    inside, outside = tmp_path / "project" / "lmm", tmp_path / "elsewhere"
    for folder in (model, inside, outside):
        folder.mkdir(parents=True)
    assert portable_source(str(inside), model) == "../../lmm"
    assert portable_source(str(outside), model) == str(outside)
    assert portable_source("owner/name", model) == "owner/name"

    named = {"lmm": "../../lmm", "sam": "owner/name"}
    (model / "grounding.json").write_text(json.dumps(named))
    (tmp_path / "project").rename(tmp_path / "moved")
    about = tmp_path / "moved" / "run" / "model" / "grounding.json"
    assert source_of(about, "lmm") == str(tmp_path / "moved" / "lmm")
    assert source_of(about, "sam") == "owner/name"
    assert source_of(about, "merge") is None
    assert source_of(about.with_name("none.json"), "lmm") is None
    about.write_text("{")
    with pytest.raises(ValueError, match="export the run again"):
        source_of(about, "lmm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("[", "are damaged"),
        ("[1]", r"they are '\[1\]'"),
        ({"mask_head": [1]}, r"mask_head is '\[1\]'"),
        ({"mask_head": {"base": "2"}}, "mask_head base is '2'"),
        ({"mask_head": {"base": 3}}, "says that its mask head has base=3, and its weights have 2"),
        ({"mask_head": {"upsample_input": 1 << 30}}, "mask_head upsample_input is"),
        ({"prompts": {"use_text": "no"}}, "prompts use_text is 'no'"),
        ({"presence": {"inputs": 1 << 40}}, "presence inputs is"),
        ({"presence": {"inputs": 5, "hidden": 4}}, "the first layer of it has the shape None"),
        ({"knows": {"what": "drawings"}}, "knows lacks what or nouns"),
        ({"knows": {"what": "drawings", "nouns": [1]}}, "knows nouns is"),
    ],
)
def test_damaged_facts_are_refused_before_anything_is_built(saved, tmp_path, changes, message):
    model, folder = saved
    path = tmp_path / "heads.safetensors"
    facts = changes if isinstance(changes, str) else json.dumps({**model.facts(), **changes})
    save_file(load_file(folder / "heads.safetensors"), path, metadata={KEY: facts})
    with pytest.raises(ValueError, match=message):
        load_grounded(model.lmm, sam=folder / "sam", heads=path)


def test_heads_that_end_in_zeros_are_refused(saved, tmp_path):
    model, folder = saved
    data = (folder / "heads.safetensors").read_bytes()
    path = tmp_path / "heads.safetensors"
    path.write_bytes(data[:-200] + bytes(200))
    with pytest.raises(ValueError, match="checksum of its header"):
        load_grounded(model.lmm, sam=folder / "sam", heads=path)
