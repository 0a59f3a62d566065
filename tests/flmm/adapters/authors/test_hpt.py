"""HPT in its authors' folders: single files and parts, positions, and what is refused."""

import json

import pytest
import torch
from flmm import load_lmm
from flmm.adapters.authors import hpt
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
from safetensors.torch import load_file, save_file
from tiny_lmms import picture

HPT = [name for name in CASES if name.startswith("hpt")]


@pytest.fixture(params=HPT)
def case(golden, request):
    return golden("forward", f"flmm/{request.param}")


def test_golden_table_of_positions(case):
    """Resized bicubically and rounded to float16, the class token's row, too: exactly."""
    vision = case.meta["vision_config"]
    table = load_file(case.folder / "visual_encoder.safetensors")[
        "vision_model.embeddings.position_embedding.weight"
    ]
    side = case.meta["image_size"] // vision["patch_size"]
    found = hpt.resized_positions(table, side, class_rows=int(case.meta["vision"] == "clip"))
    assert torch.equal(found, case.tensor("interpolated_position_embedding").cpu())


def test_golden_features_of_the_image(case):
    name = first_of(case)
    if f"{name}__image_features" not in case.arrays:
        pytest.skip("the case has none")
    pixels = sample_of(case, name).image.pixel_values[None]
    with torch.no_grad():
        found = golden_lmm(case).model.model.vision(pixels)
    torch.testing.assert_close(found, case.tensor(f"{name}__image_features"), atol=5e-5, rtol=1e-4)


def test_golden_folder_in_parts_and_torch_files(case, tmp_path):
    expected = golden_lmm(case)([sample_of(case, first_of(case))])[0].maps
    folder = authors_folder(case, tmp_path / "lmm")
    in_parts(folder / "llm")
    weights = folder / "visual_encoder" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    found = read_authors(case, folder)
    assert torch.equal(found([sample_of(case, first_of(case))])[0].maps, expected)


def test_golden_folder_loads_as_users_have_it(case, tmp_path, monkeypatch):
    kind = f"{case.meta['vision']}_vision_model"
    monkeypatch.setitem(hpt.SIDES, kind, case.meta["image_size"])
    lmm = load_lmm(authors_folder(case, tmp_path / "lmm"), dtype="float32")
    assert lmm.config.model_type == "hpt"
    assert lmm.tokenizer.convert_tokens_to_ids("<image>") == lmm.family.image_token_id
    text = lmm.tokenizer.encode(lmm.family.style.prompt("What is it?"))
    image = lmm.family.prepare(picture(60, 90))
    answer = lmm.generate([image], torch.tensor(text), max_new_tokens=4)
    assert answer.maps.shape[1:] == (lmm.map_channels, case.meta["num_patches"])


@pytest.mark.parametrize("part", hpt.PARTS)
def test_golden_folder_with_other_weights_is_refused(case, tmp_path, part):
    folder = authors_folder(case, tmp_path / "lmm")
    file = folder / part / "model.safetensors"
    tensors = read_weights(folder / part)
    last = sorted(name for name in tensors if "bias" in name or "norm" in name)[-1]
    for broken in (
        {name: value for name, value in tensors.items() if name != last},
        {**tensors, "model.extra.weight": torch.ones(2), "vision_model.extra": torch.ones(3)},
    ):
        save_file(broken, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"are not those of .*download all files of llm/"):
            read_authors(case, folder)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_authors(case, folder)


def test_golden_folder_without_a_part_or_with_another_tower(case, tmp_path):
    folder = authors_folder(case, tmp_path / "lmm")
    path = folder / "visual_encoder" / "config.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "model_type": "vit"}))
    with pytest.raises(ValueError, match="of type 'vit': HPT has one of clip_vision_model, siglip"):
        read_authors(case, folder)
    path.unlink()
    assert not hpt.is_hpt(folder)
    with pytest.raises(FileNotFoundError, match=r"has no config[.]json with"):
        load_lmm(folder)
