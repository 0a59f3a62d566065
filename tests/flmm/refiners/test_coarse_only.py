"""Grounding without a refiner: coarse masks at the size of the image, from training to command."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_models import UNetHead
from clim_train import Trainer
from flmm import GroundedLMM, GroundingLoader, GroundingTask, load_grounded
from flmm.commands.main import main
from flmm.refiners import CoarseOnly, ResizedImage, load_refiner
from flmm.refiners.coarse_only import drawn_places
from flmm.web.session import Demo
from PIL import Image
from tiny_grounding import Pictures, save_tiny_grounded, tiny_config, tiny_lmm, word_tokenizer


def coarse_model(seed=3):
    lmm = tiny_lmm("llava")
    lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
    torch.manual_seed(seed)
    return GroundedLMM(lmm, UNetHead(lmm.map_channels, base=2, upsample_input=16), CoarseOnly())


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (17, 90)])
def test_masks_are_the_coarse_ones_at_the_size_of_the_image(size):
    refiner = load_refiner("none", use_text=False)
    coarse = 5 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    image = Image.new("L", size[::-1])
    (found,) = refiner.refine([image], [coarse])
    expected = F.interpolate(coarse[None], size, mode="bilinear")[0]
    assert torch.equal(found.masks, expected)
    assert torch.equal(refiner(refiner.embed([image]), [coarse])[0], expected)
    assert ResizedImage.of(image, refiner.square).pixels.numel() == 0


def test_predicted_iou_follows_the_probabilities():
    sure = torch.full((1, 6, 6), -20.0)
    sure[0, :3] = 20
    empty = torch.full((1, 6, 6), -1.0)
    (found,) = CoarseOnly().refine(
        [Image.new("RGB", (6, 6))], [torch.cat([sure, sure / 20, empty])]
    )
    inside, outside = torch.tensor([1.0, -1.0]).sigmoid()
    half = (inside * 18 / (18 + outside * 18)).item()
    assert found.ious.tolist() == pytest.approx([1, half, 0], abs=1e-5)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"one image and one \(n, h, w\)"):
        CoarseOnly()([Image.new("RGB", (6, 6))], [])
    with pytest.raises(ValueError, match=r"pass \(n, h, w\) logits"):
        CoarseOnly()([Image.new("RGB", (6, 6))], [torch.zeros(4, 4)])


def test_the_mask_head_trains_alone_and_its_file_says_so(tmp_path):
    model = coarse_model()
    assert all(name.startswith("mask_head.") for name in model.trained_names())
    config = tiny_config(tmp_path / "run", steps=2)
    loader = GroundingLoader(
        {"pictures": Pictures()}, model.lmm, square=model.sam.square, batch_size=2
    )
    before = model.mask_head.predict.weight.clone()
    task = GroundingTask(model, about={"lmm": "x", "sam": "none"})
    Trainer(config, task, loader, program="flmm train").fit()
    assert not torch.equal(model.mask_head.predict.weight, before)

    heads = tmp_path / "run" / "model" / "heads.safetensors"
    again = load_grounded(coarse_model().lmm, sam="none", heads=heads, dtype="float32")
    assert torch.equal(again.mask_head.predict.weight, model.mask_head.predict.weight)
    save_tiny_grounded(tmp_path)
    with pytest.raises(ValueError, match=r"trained without a refiner.*--refiner none"):
        load_grounded(coarse_model().lmm, sam=tmp_path / "sam", heads=heads, dtype="float32")


def test_heads_trained_with_sam_also_draw_coarse_masks(tmp_path, capsys):
    with_sam = save_tiny_grounded(tmp_path)
    Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    words = ["ground", str(tmp_path / "photo.png"), "a red car", "the dog", "--device", "cpu"]
    words += ["--checkpoint", str(tmp_path / "heads"), "-o", str(tmp_path / "out.png")]
    assert main([*words, "--refiner", "none"]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out.json").read_text())["phrases"]

    model = load_grounded(
        tmp_path / "lmm",
        sam="none",
        heads=tmp_path / "heads" / "heads.safetensors",
        dtype="float32",
    )
    from flmm import ground, ground_phrases

    image = Image.open(tmp_path / "photo.png")
    masks = ground(image, ["a red car", "the dog"], model)
    assert [one["area"] for one in found] == masks.sum((1, 2)).tolist()
    coarse = ground_phrases(with_sam, image, ["a red car", "the dog"]).coarse
    expected = F.interpolate(coarse[None].float(), (40, 56), mode="bilinear")[0] > 0
    assert np.array_equal(masks, expected.numpy())


def test_chat_and_page_need_no_refiner(tmp_path, capsys):
    save_tiny_grounded(tmp_path)
    Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    model = ["--checkpoint", str(tmp_path / "heads"), "--device", "cpu", "--refiner", "none"]
    words = ["chat", str(tmp_path / "photo.png"), "-q", "What is it?", *model]
    answered = [*words, "--max-new-tokens", "6", "-o", str(tmp_path / "out")]
    assert main(answered) == 0, capsys.readouterr().err

    heads = tmp_path / "heads" / "heads.safetensors"
    demo = Demo(load_grounded(tmp_path / "lmm", sam="none", heads=heads, dtype="float32"))
    name, _ = demo.add_picture((tmp_path / "photo.png").read_bytes())
    assert demo.ground(name, ["a red car"]).masks.shape == (1, 40, 56)
    assert demo.look_again(name, "the dog", focus="question").mask.shape == (40, 56)


def test_a_point_is_a_small_square_and_thin_boxes_hold_a_cell():
    places = [[[50.0, 20]], [[10.2, 10.2, 10.4, 30]], [[0.0, 0, 5, 5], [90, 0, 100, 40]]]
    logits = drawn_places([torch.tensor(place) for place in places], (40, 100)) > 0
    square = [[y, x] for y in range(17, 23) for x in range(47, 53)]
    assert logits[0].nonzero().tolist() == square
    assert logits[1].any(0).sum() == 1
    assert logits[2].sum() == 25 + 400
    large = drawn_places([torch.tensor([[0.0, 0, 2000, 4000]])], (4000, 4000))
    assert large.shape == (1, 1024, 1024)
    assert (large > 0).sum() == 1024 * 512


def test_places_are_drawn_at_the_size_of_the_image():
    box, nothing = torch.tensor([[10.0, 5, 20, 15]]), torch.zeros(0, 4)
    (found,) = CoarseOnly().refine_places([Image.new("RGB", (40, 30))], [[box, nothing]])
    assert (found.masks[0] > 0).nonzero().amin(0).tolist() == [5, 10]
    assert (found.masks[0] > 0).sum() == 100
    assert not (found.masks[1] > 0).any()
    assert found.ious[1] == 0
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        CoarseOnly().refine_places([Image.new("RGB", (40, 30))], [[torch.zeros(1, 3)]])
