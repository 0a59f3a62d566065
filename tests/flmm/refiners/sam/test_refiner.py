"""SamRefiner against the original wrapper (golden), and its batches against phrases one by one."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from device import DEVICE
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.sam.geometry import (
    binary_masks,
    least_value,
    mask_boxes,
    masks_to_image,
    prompt_masks,
)
from flmm.refiners.sam.refiner import SamRefiner
from flmm.refiners.sam.weights import POSITIONS, load_sam, to_transformers
from flmm.refiners.square import Square, resize_image, resized_size
from PIL import Image
from safetensors.torch import load_file
from tolerance import float32_sum
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

SAM = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parents[3] / "golden")) / "flmm" / "sam"
CASES = sorted(path.stem for path in SAM.glob("case*.json"))
VARIANTS = {
    name: list(json.loads((SAM / f"{name}.json").read_text())["variants"]) for name in CASES
}
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def golden_sam(golden):
    heads = golden("sam/sam_tiny", "flmm").meta["config"]["dec_num_heads"]
    return load_sam(SAM / "sam_tiny.safetensors", decoder_heads=heads).to(DEVICE)


@pytest.fixture(scope="module")
def sam(golden):
    return golden_sam(golden)


@pytest.fixture(scope="module")
def embeddings(golden, sam):
    """name -> ImageEmbedding: the encoder takes seconds at 1024 px."""
    refiner = SamRefiner(sam)
    images = [Image.open(SAM / golden(f"sam/{name}", "flmm").meta["image"]) for name in CASES]
    return dict(zip(CASES, refiner.embed(images), strict=True))


def texts_of(case):
    return [case.tensor(f"text_embeds_{i}") for i in range(case.meta["num_masks"])]


def flags_of(variant):
    return {key: variant[key] for key in ("use_text", "use_mask", "use_box") if key in variant} | {
        "multimask": variant.get("multimask_output", False)
    }


def test_golden_cases_are_found():
    assert CASES, f"no case*.json in {SAM}"


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_golden_image(golden, embeddings, name):
    case = golden(f"sam/{name}", "flmm")
    image = Image.open(SAM / case.meta["image"])
    assert np.array_equal(np.asarray(image.convert("RGB")), case.arrays["image_rgb"])
    edge = max(case.meta["input_size"])
    resized = resize_image(image, Square(edge))
    assert (
        list(resized_size((image.height, image.width), edge))
        == case.meta["input_size"]
        == list(resized.shape[1:])
    )
    expected, step = case.strided("resized_image")
    assert torch.equal(resized.permute(1, 2, 0)[::step, ::step], expected.cpu())
    assert resized.long().sum((1, 2)).tolist() == case.arrays["resized_image_sum"].tolist()
    features = embeddings[name].features
    assert embeddings[name].size == tuple(case.meta["original_size"])
    expected, step = case.strided("image_embedding")
    torch.testing.assert_close(features[None, :, ::step, ::step], expected, **CLOSE)
    torch.testing.assert_close(
        features.norm().item(), case.meta["image_embedding_stats"]["l2"], atol=0, rtol=1e-5
    )


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_golden_prompts(golden, sam, name):
    case = golden(f"sam/{name}", "flmm")
    coarse, size = case.tensor("pred_masks"), tuple(case.meta["original_size"])
    edge = max(case.meta["input_size"])
    torch.testing.assert_close(least_value(coarse).item(), case.meta["pad_value_of_prompt_masks"])
    masks = prompt_masks(
        coarse, size, square=Square(edge), mask_edge=case.meta["prompt_mask_stats"]["shape"][-1]
    )
    expected, step = case.strided("prompt_masks")
    torch.testing.assert_close(masks[:, None, ::step, ::step], expected, **CLOSE)
    # Bilinear weights are positions in pixels, up to `edge`, that each device rounds to float32 in
    # its own way. The golden values are a CPU's.
    rounding = 1e-5 if masks.device.type == "cpu" else edge * torch.finfo(torch.float32).eps
    torch.testing.assert_close(
        masks.norm().item(), case.meta["prompt_mask_stats"]["l2"], atol=0, rtol=rounding
    )

    binary = binary_masks(coarse, size)
    wanted = np.unpackbits(case.arrays["binary_masks"], axis=-1)[..., : size[1]].astype(bool)
    assert np.array_equal(binary.cpu().numpy(), wanted)
    boxes = case.tensor("boxes_original")
    whole = boxes.new_tensor([0, 0, size[1], size[0]])
    boxes = torch.where((boxes < 0).any(1, keepdim=True), whole, boxes)
    assert torch.equal(mask_boxes(binary).long(), boxes)

    grid = sam.prompt_encoder.image_embedding_size
    prompts = SamRefiner(sam).encode_prompts([size], [coarse], [texts_of(case)])
    torch.testing.assert_close(prompts.boxes, case.tensor("default__boxes_input")[:, 0], **CLOSE)
    torch.testing.assert_close(prompts.sparse[:, :2], case.tensor("default__sparse_box"), **CLOSE)
    expected, step = case.strided("default__dense")
    dense = (
        (prompts.channels @ prompts.weight.T + prompts.bias).unflatten(1, grid).permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(dense[:, :, ::step, ::step], expected, **CLOSE)
    assert prompts.lengths == case.meta["variants"]["default"]["sparse_tokens"]


@pytest.mark.device
@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in CASES for variant in VARIANTS[name]]
)
def test_golden_masks(golden, sam, embeddings, name, variant):
    case = golden(f"sam/{name}", "flmm")
    refiner = SamRefiner(sam, **flags_of(case.meta["variants"][variant]))
    coarse, texts = [case.tensor("pred_masks")], [texts_of(case)]
    with torch.no_grad():
        prompts = refiner.encode_prompts([embeddings[name].size], coarse, texts)
        low_res, iou = refiner.decode([embeddings[name]], prompts, [len(coarse[0])])
        masks = refiner([embeddings[name]], coarse, texts)[0]
    assert prompts.lengths == case.meta["variants"][variant]["sparse_tokens"]
    torch.testing.assert_close(iou, case.tensor(f"{variant}__iou_predictions"), **CLOSE)
    if any(key.startswith(f"{variant}__low_res") for key in case.arrays):
        expected, step = case.strided(f"{variant}__low_res")
        torch.testing.assert_close(low_res[..., ::step, ::step], expected, **CLOSE)
    wanted = case.tensor(f"{variant}__sam_masks")
    step = round(masks.shape[-1] / wanted.shape[-1])
    torch.testing.assert_close(masks[:, ::step, ::step], wanted, **CLOSE)
    torch.testing.assert_close(
        masks.norm().item(), case.meta["sam_mask_stats"][variant]["l2"], atol=1e-3, rtol=1e-4
    )


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_golden_gradients(golden, embeddings, name):
    case = golden(f"sam/{name}", "flmm")
    refiner = SamRefiner(golden_sam(golden)).train()
    coarse = case.tensor("pred_masks").requires_grad_()
    texts = [text.requires_grad_() for text in texts_of(case)]
    masks = refiner([embeddings[name]], [coarse], [texts])[0]
    frequency = float(re.search(r"cos\(([\d.]+)\*arange", case.meta["grad_note"])[1])
    cotangent = np.cos(frequency * np.arange(masks.numel(), dtype=np.float64)).astype(np.float32)
    (
        masks * torch.from_numpy(cotangent).to(masks).view_as(masks) / masks.numel() ** 0.5
    ).sum().backward()
    wanted = case.tensor("grad__pred_masks")
    torch.testing.assert_close(
        coarse.grad, wanted, atol=1e-4 * max(wanted.abs().max().item(), 1), rtol=1e-4
    )
    for i, text in enumerate(texts):
        torch.testing.assert_close(text.grad, case.tensor(f"grad__text_embeds_{i}"), **CLOSE)
    assert_parameter_gradients(refiner, case.meta["param_grad_l2"])


def assert_parameter_gradients(refiner, norms):
    wanted = to_transformers({key.removeprefix("model."): norm for key, norm in norms.items()})
    trained = {key: p for key, p in refiner.named_parameters() if p.requires_grad}
    assert trained.keys() == wanted.keys()
    for key, norm in wanted.items():
        grad = trained[key].grad
        if norm is None or norm == 0:
            assert (grad is None) if norm is None else not grad.any(), key
        else:
            torch.testing.assert_close(
                grad.norm().item(), norm, atol=1e-5, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}"
            )


# Below: a small SAM of 128 px, whose encoder takes milliseconds.


def tiny_sam(seed=0):
    torch.manual_seed(seed)
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=128,
            window_size=3,
            global_attn_indexes=[1],
            num_pos_feats=16,
            initializer_range=0.02,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=32, image_size=128, mask_input_channels=8
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=32,
            mlp_dim=24,
            num_attention_heads=4,
            iou_head_hidden_dim=12,
            layer_norm_eps=1e-5,
        ),
    )
    sam = SamModel(config).eval()
    with torch.no_grad():
        for parameter in sam.parameters():  # far from the start, where many numbers are zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return sam


@pytest.fixture(scope="module")
def tiny():
    return tiny_sam()


def scene(phrases=((2, 5, 1), (3,)), sizes=((90, 120), (75, 50)), seed=0):
    """Two images with phrases of different numbers of tokens: images, coarse logits, text."""
    generator = torch.Generator().manual_seed(seed)
    pixels = [
        torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()
        for size in sizes
    ]
    coarse = [
        4 * torch.randn(len(tokens), size[0] // 8, size[1] // 8, generator=generator)
        for tokens, size in zip(phrases, sizes, strict=True)
    ]
    text = [[torch.randn(count, 32, generator=generator) for count in tokens] for tokens in phrases]
    return [Image.fromarray(p) for p in pixels], coarse, text


def one_by_one(refiner, sam, scene_):
    """Every phrase on its own, unpadded, through transformers' own decoder and plain
    interpolation."""
    results = []
    for image, masks, phrases in zip(*scene_, strict=True):
        embedding = refiner.embed([image])[0].features[None]
        size, edge = (image.height, image.width), refiner.square.edge
        h, w = resized_size(size, edge)
        for mask, words in zip(masks, phrases, strict=True):
            logits = F.interpolate(mask[None, None], (h, w), mode="bilinear")
            logits = F.pad(logits, (0, edge - w, 0, edge - h), value=min(-1.0, masks.min().item()))
            logits = F.interpolate(logits, (edge // 4, edge // 4), mode="bilinear")
            binary = F.interpolate(mask[None, None].sigmoid(), size, mode="bilinear")[0, 0] > 0.5
            y, x = (
                binary.nonzero().unbind(1)
                if binary.any()
                else (torch.tensor([0, size[0] - 1]), torch.tensor([0, size[1] - 1]))
            )
            box = torch.tensor(
                [
                    x.min() * w / size[1],
                    y.min() * h / size[0],
                    (x.max() + 1) * w / size[1],
                    (y.max() + 1) * h / size[0],
                ]
            )
            sparse, dense = sam.prompt_encoder(None, None, box[None, None], logits)
            sparse = torch.cat([sparse, words[None, None]], dim=2)
            positions = sam.get_image_wide_positional_embeddings()
            low, _ = sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=False)
            square = F.interpolate(low[0], (edge, edge), mode="bilinear")[..., :h, :w]
            results.append(F.interpolate(square, size, mode="bilinear")[0, 0])
    return results


def set_passes(refiner, at_once):
    """Let the decoder handle `at_once` phrases at a time; None for its own choice."""
    if at_once is not None:
        refiner._phrases_per_pass = lambda phrases: at_once


@pytest.mark.parametrize("at_once", [None, 2, 100])  # 2: several phrases of one image in a pass
def test_phrases_together_equal_transformers_one_by_one(tiny, at_once):
    refiner = SamRefiner(tiny)
    set_passes(refiner, at_once)
    images, coarse, text = scene()
    coarse[0][2] = -3.0  # an empty mask
    with torch.no_grad():
        expected = one_by_one(refiner, tiny, (images, coarse, text))
        masks = refiner(images, coarse, text)
    assert [tuple(m.shape) for m in masks] == [(3, 90, 120), (1, 75, 50)]
    for a, b in zip([m for of_image in masks for m in of_image], expected, strict=True):
        assert b.std() > 1e-3
        torch.testing.assert_close(a, b, atol=float32_sum(1000), rtol=1e-4)


def test_padding_carries_no_gradient_and_passes_change_nothing(tiny):
    gradients = []
    for at_once in (1, 3, None):
        refiner = SamRefiner(tiny_sam()).train()
        set_passes(refiner, at_once)
        images, coarse, text = scene()
        coarse = [c.requires_grad_() for c in coarse]
        text = [[t.requires_grad_() for t in phrases] for phrases in text]
        sum(masks.square().mean() for masks in refiner(images, coarse, text)).backward()
        inputs = [*coarse, *(t for phrases in text for t in phrases)]
        trained = [p.grad for p in refiner.parameters() if p.grad is not None]
        gradients.append([*(x.grad for x in inputs), *trained])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_without_gradients_a_cpu_takes_one_phrase_at_a_time(tiny, monkeypatch):
    sizes = []
    original = SamRefiner._run
    monkeypatch.setattr(
        SamRefiner,
        "_run",
        lambda self, choice, x, *rest: (sizes.append(len(x)), original(self, choice, x, *rest))[1],
    )
    refiner, inputs = SamRefiner(tiny), scene()
    refiner(*inputs)
    with torch.no_grad():
        refiner(*inputs)
    assert sizes == [4, 1, 1, 1, 1]


def test_image_embeddings_stand_in_for_images(tiny, monkeypatch):
    refiner = SamRefiner(tiny)
    images, coarse, text = scene()
    embeddings = refiner.embed(images)
    assert all(isinstance(e, ImageEmbedding) and not e.features.requires_grad for e in embeddings)
    with torch.no_grad():
        expected = refiner(images, coarse, text)
        mixed = refiner([embeddings[0], images[1]], coarse, text)
        refiner.image_encoder = None
        cached = refiner(embeddings, coarse, text)
        with pytest.raises(ValueError, match="no image encoder"):
            refiner(images, coarse, text)
    for masks in (mixed, cached):
        for a, b in zip(masks, expected, strict=True):
            torch.testing.assert_close(a, b, atol=float32_sum(1000), rtol=1e-4)


def test_images_of_any_mode_are_read_as_rgb(tiny):
    refiner = SamRefiner(tiny)
    grey = scene()[0][0].convert("L")
    (a, b) = refiner.embed([grey, grey.convert("RGB")])
    torch.testing.assert_close(a.features, b.features, atol=float32_sum(1000), rtol=1e-4)


def test_no_phrases_and_no_tokens(tiny):
    refiner = SamRefiner(tiny_sam()).train()
    images, coarse, text = scene(phrases=((), (0, 2)))
    masks = refiner(images, coarse, text)
    assert [m.shape[0] for m in masks] == [0, 2]
    wordless = SamRefiner(tiny, use_text=False)(images[1:], [coarse[1][:1]])[0]
    torch.testing.assert_close(masks[1][:1], wordless, atol=float32_sum(1000), rtol=1e-4)
    empty = refiner(images[:1], coarse[:1], text[:1])[0]
    assert empty.shape == (0, 90, 120)
    empty.sum().backward()
    assert refiner.mask_decoder.mask_tokens.weight.grad.eq(0).all()


def test_what_trains(tiny):
    refiner = SamRefiner(tiny_sam()).train()
    trained = {name for name, p in refiner.named_parameters() if p.requires_grad}
    frozen = {name for name, p in refiner.named_parameters() if not p.requires_grad}
    assert all(name.startswith(("prompt_encoder.", "mask_decoder.")) for name in trained)
    assert {name for name in frozen if not name.startswith("image_encoder.")} == {POSITIONS}
    assert not any(module.training for module in refiner.image_encoder.modules())
    assert {id(p) for p in refiner.direct_parameters()} == {
        id(p) for p in refiner.parameters() if p.requires_grad
    }


def test_gradient_checkpointing_changes_no_number():
    results = []
    for enable in (False, True):
        refiner = SamRefiner(tiny_sam()).train()
        refiner.set_grad_checkpointing(enable)
        masks = refiner(*scene())
        sum(m.square().mean() for m in masks).backward()
        results.append([*masks, *(p.grad for p in refiner.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_expected_ious_are_those_of_the_chosen_masks(tiny):
    images, coarse, text = scene()
    for multimask in (False, True):
        refiner = SamRefiner(tiny, multimask=multimask)
        with torch.no_grad():
            found = refiner.refine(images, coarse, text)
            embeddings = refiner.embed(images)
            prompts = refiner.encode_prompts([e.size for e in embeddings], coarse, text)
            counts = [len(masks) for masks in coarse]
            low_res, ious = refiner.decode(embeddings, prompts, counts)
        expected = ious.clamp(0, 1).split(counts)
        for of_image, masks, wanted, embedding, binary in zip(
            found, low_res.split(counts), expected, embeddings, prompts.binary, strict=True
        ):
            assert of_image.ious.shape == (len(masks),)
            for number, candidates in enumerate(masks):
                full = masks_to_image(candidates, embedding.size, square=refiner.square)
                both = ((full > 0) & binary[number]).sum((1, 2))
                best = int((both / ((full > 0) | binary[number]).sum((1, 2)).clamp(min=1)).argmax())
                best = best if multimask else 0
                assert of_image.ious[number] == wanted[number, best]
                torch.testing.assert_close(of_image.masks[number], full[best])


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_close(tiny, autocast):
    inputs = scene()
    with torch.no_grad():
        exact = SamRefiner(tiny)(*inputs)
        refiner = SamRefiner(tiny_sam())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            rough = (refiner if autocast else refiner.bfloat16())(*inputs)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype is torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_half_precision_words_meet_float32_heads(tiny):
    images, coarse, text = scene()
    with torch.no_grad():
        a = SamRefiner(tiny)(images, coarse, [[t.bfloat16() for t in phrases] for phrases in text])
        b = SamRefiner(tiny)(
            images, coarse, [[t.bfloat16().float() for t in phrases] for phrases in text]
        )
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_example_of_the_readme_runs_as_printed(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[4] / "packages" / "flmm" / "README.md").read_text()
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.S)
        if "SamRefiner.from" in block
    )
    torch.save(load_file(SAM / "sam_tiny.safetensors"), tmp_path / "sam_vit_l_0b3195.pth")
    scene()[0][0].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["masks"].shape == (3, 90, 120)
    assert torch.equal(scope["masks"], scope["again"])


def test_wrong_input_is_refused(tiny):
    refiner = SamRefiner(tiny)
    images, coarse, text = scene()
    for wrong, message in (
        ((images, coarse[:1], text), "one image and one"),
        ((images, coarse[0], text), "one image and one"),
        (([], [], []), "one image and one"),
        ((images, [c[0] for c in coarse], text), "pass \\(n, h, w\\)"),
        ((images, coarse, [text[0][:2], text[1]]), "per mask, or build"),
        ((images, coarse, None), "per mask, or build"),
        (
            (images, coarse, [[t[:, :5] for t in phrases] for phrases in text]),
            "pass \\(tokens, 32\\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            refiner(*wrong)
    with pytest.raises(ValueError, match="at least one"):
        SamRefiner(tiny, use_text=False, use_mask=False, use_box=False)
