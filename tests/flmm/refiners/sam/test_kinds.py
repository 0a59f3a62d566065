"""Every SAM of transformers as a refiner: against its own class, one phrase at a time, on images of
several shapes; trained, saved and loaded."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from clim_models import UNetHead
from flmm import (
    FeatureCache,
    GroundedLMM,
    GroundingBatch,
    GroundingTask,
    SamRefiner,
    load_grounded,
)
from flmm.refiners import load_refiner
from flmm.refiners.sam.geometry import boxes_to_square, mask_boxes, masks_to_image, prompt_masks
from flmm.refiners.sam.kinds import steadier
from library_sams import (
    library_embeddings,
    picture,
    processor_of,
    read_what_the_transformer_wrote,
)
from tiny_grounding import batch_of, narrative, tiny_lmm, word_tokenizer
from tiny_sams import SAMS, WIDTH, sam2, tiny
from tolerance import float32_sum

CLOSE = {"atol": float32_sum(1000), "rtol": 1e-4}
NEW = [name for name in SAMS if name != "sam"]
SIZES = [(90, 120), (75, 50), (30, 150)]


@pytest.fixture(scope="module", params=NEW)
def pair(request):
    """Name, refiner without words, and the same model as transformers runs it."""
    model = tiny(request.param)
    if request.param == "sam_hq":
        read_what_the_transformer_wrote(model)
    return request.param, SamRefiner(copy.deepcopy(model), use_text=False).eval(), model


def scene(sizes=SIZES, phrases=(3, 1, 2)):
    generator = torch.Generator().manual_seed(1)
    images = [picture(size, seed) for seed, size in enumerate(sizes)]
    coarse = []
    for count, (h, w) in zip(phrases, sizes, strict=True):
        coarse.append(4 * torch.randn(count, h // 10, w // 10, generator=generator))
    return images, coarse


def library_masks(name, model, refiner, image, coarse):
    """Masks (n, H, W) and scores (n,) of an image, phrase by phrase, through the library's own
    processor and forward; the pixels are ours."""
    size = (image.height, image.width)
    processor = processor_of(name, refiner.square.edge)
    inputs = library_embeddings(refiner, image)
    probabilities = F.interpolate(coarse[None].sigmoid(), size, mode="bilinear")[0]
    side = 4 * model.prompt_encoder.image_embedding_size[0]
    masks, scores = [], []
    for logits, binary in zip(coarse, probabilities > 0.5, strict=True):
        box = mask_boxes(binary[None])[0].tolist()
        given = processor(images=image, input_boxes=[[box]], return_tensors="pt")
        frame = refiner.square.frame(size)
        prompt = F.interpolate(logits[None, None], frame, mode="bilinear")
        least = min(-1.0, coarse.min().item())  # the padding of all masks of the image
        edge = refiner.square.edge
        prompt = F.pad(prompt, (0, edge - frame[1], 0, edge - frame[0]), value=least)
        if refiner.square.squashed:
            prompt = logits[None, None]
        prompt = F.interpolate(prompt, (side, side), mode="bilinear")
        found = model(
            **inputs,
            input_boxes=given["input_boxes"].float(),
            input_masks=prompt,
            multimask_output=False,
        )
        sizes = [given["original_sizes"]]
        if not refiner.square.squashed:
            sizes.append(given["reshaped_input_sizes"])
        post = {"pad_size": {"height": edge, "width": edge}} if len(sizes) == 2 else {}
        (full,) = processor.post_process_masks(found.pred_masks, *sizes, binarize=False, **post)
        masks.append(full[0, 0])
        scores.append(found.iou_scores[0, 0, 0])
    return torch.stack(masks), torch.stack(scores)


@torch.no_grad()
def test_phrases_together_equal_the_library_one_by_one(pair):
    name, refiner, model = pair
    images, coarse = scene()
    found = refiner.refine(images, coarse)
    for image, masks, mine in zip(images, coarse, found, strict=True):
        wanted, scores = library_masks(name, model, refiner, image, masks)
        assert wanted.std() > 1e-3
        torch.testing.assert_close(mine.masks, wanted, **CLOSE)
        torch.testing.assert_close(mine.ious, scores.clamp(0, 1), **CLOSE)
        assert ((mine.ious >= 0) & (mine.ious <= 1)).all()


@torch.no_grad()
def test_pixels_and_embeddings_are_the_library_s(pair):
    name, refiner, model = pair
    image = picture(SIZES[0])
    given = processor_of(name, refiner.square.edge)(images=image, return_tensors="pt")
    encoder = refiner.frozen_encoder()
    seen = []
    handle = encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    (mine,) = encoder.embed([image])
    handle.remove()
    # Two resizers, each of which rounds to whole levels: one level of 255 apart.
    level = 1.01 / min(encoder.pixel_std)
    assert (seen[0] - given["pixel_values"]).abs().max() <= level
    found = model.get_image_embeddings(seen[0])
    if refiner.sam_kind.hq:
        features, early = found
        details = [early[0].permute(0, 3, 1, 2)]
    else:
        *details, features = found
    torch.testing.assert_close(mine.features, features[0], **CLOSE)
    for a, b in zip(mine.details, details, strict=True):
        torch.testing.assert_close(a, b[0], **CLOSE)


@torch.no_grad()
def test_words_of_any_number_equal_phrases_alone(pair):
    _, _, model = pair
    refiner = SamRefiner(copy.deepcopy(model)).eval()
    images, coarse = scene()
    generator = torch.Generator().manual_seed(2)
    lengths = [[3, 1, 4], [0], [2, 5]]
    text = [[torch.randn(n, WIDTH, generator=generator) for n in of_image] for of_image in lengths]
    refiner._phrases_per_pass = lambda phrases: max(phrases, 1)  # all in one padded pass
    together = refiner(images, coarse, text)
    for image, masks, words, mine in zip(images, coarse, text, together, strict=True):
        for i in range(len(masks)):
            # The padding of a mask prompt is the least logit of the image's masks.
            alone = refiner([image], [masks[[i]].clamp(min=masks.min())], [words[i : i + 1]])[0][0]
            if refiner.square.squashed or masks[i].min() == masks.min():
                torch.testing.assert_close(mine[i], alone, **CLOSE)


@pytest.mark.parametrize("name", SAMS)
@pytest.mark.parametrize("size", [(96, 128), (128, 96), (40, 200), (200, 40), (64, 64)])
def test_a_mask_at_a_known_place_comes_back_there(name, size):
    square = SamRefiner(tiny(name)).square
    height, width = size
    truth = torch.zeros(1, height, width)
    truth[:, height // 4 : height // 2, width // 2 : width * 3 // 4] = 1
    coarse = 8 * F.interpolate(truth[None], (height // 4, width // 4), mode="area")[0] - 4
    prompt = prompt_masks(coarse, size, square=square, mask_edge=square.edge // 2)
    back = masks_to_image(prompt, size, square=square) > 0
    both = (back & (truth > 0)).sum() / (back | (truth > 0)).sum()
    assert both > 0.8
    # Its box in the square lies where the prompt is positive.
    x0, y0, x1, y1 = (boxes_to_square(mask_boxes(truth > 0), size, square=square)[0] / 2).tolist()
    y, x = (prompt[0] > 0).nonzero().unbind(1)
    found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert [float(v) for v in found] == pytest.approx([x0, y0, x1, y1], abs=3)


@pytest.mark.parametrize("name", NEW)
def test_heads_train_on_it_and_their_file_names_it(name, tmp_path):
    model = tiny(name)
    model.save_pretrained(tmp_path / "sam")
    lmm = tiny_lmm("llava")
    lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
    head = UNetHead(lmm.map_channels, base=2, upsample_input=16)
    grounded = GroundedLMM(lmm, head, SamRefiner(model))
    task = GroundingTask(grounded)
    grounded.train()
    task.loss(batch_of(grounded, [0, 1], [2, 1]))["loss"].backward()
    trained = dict(grounded.heads.named_parameters())
    for part in (
        "text_proj.weight",
        "mask_head.predict.weight",
        "sam.prompt_encoder.mask_embed.conv1.weight",
        "sam.mask_decoder.transformer.layers.0.mlp.proj_in.weight"
        if name != "sam_hq"
        else "sam.mask_decoder.hq_mask_mlp.proj_in.weight",
        "sam.mask_decoder.output_hypernetworks_mlps.0.proj_in.weight",
        "sam.mask_decoder.upscale_conv1.weight",
    ):
        assert trained[part].grad.abs().sum() > 0, part
    assert all(p.grad is None for p in grounded.sam.frozen_encoder().parameters())

    heads = grounded.save_heads(tmp_path / "heads.safetensors")
    again = load_grounded(lmm, sam=tmp_path / "sam", heads=heads)
    assert again.sam.kind == name == again.facts()["refiner"]
    grounded.eval()
    features = lmm([batch_of(grounded, [0], [2]).items[0].sample])
    image = picture(SIZES[0])
    with torch.no_grad():
        expected, found = (m.ground(features, [image])[0].refined for m in (grounded, again))
    torch.testing.assert_close(found, expected)
    tiny("sam").save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="trained for another model"):
        load_grounded(lmm, sam=tmp_path / "other", heads=heads)


@pytest.mark.parametrize("name", ["sam2", "sam_hq"])
def test_cached_features_have_the_details_of_the_embedding(name, tmp_path):
    lmm = tiny_lmm("llava")
    lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
    head = UNetHead(lmm.map_channels, base=2, upsample_input=16)
    model = GroundedLMM(lmm, head, SamRefiner(tiny(name)))
    cache = FeatureCache(tmp_path, {"model": name})
    expected = GroundingTask(model, cache=cache).loss(batch_of(model, [0], [2]))["loss"]
    cache.flush()
    item = FeatureCache(tmp_path, {"model": name}).find("0", narrative(0, 2))
    found = GroundingTask(model).loss(GroundingBatch((item,)))["loss"]
    assert torch.equal(found, expected)


def test_the_kind_is_read_from_the_configuration(tmp_path):
    film = sam2(hf.Sam2VideoConfig, hf.Sam2VideoModel)
    film.save_pretrained(tmp_path / "film")
    refiner = load_refiner(tmp_path / "film", use_text=False)
    assert refiner.kind == "sam2"
    weight = refiner.mask_decoder.iou_token.weight
    assert torch.equal(weight, film.mask_decoder.iou_token.weight)
    (tmp_path / "film" / "config.json").write_text('{"model_type": "sam3"}')
    with pytest.raises(ValueError, match=r"takes no coarse mask: pass .*sam3_tracker"):
        load_refiner(tmp_path / "film")
    (tmp_path / "film" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"no SAM, but a model of type 'llama'.*`none`"):
        load_refiner(tmp_path / "film")
    with pytest.raises(ValueError, match="Linear is no SAM that takes masks and boxes"):
        SamRefiner(torch.nn.Linear(1, 1))


def test_an_unsteady_mask_gives_way_to_the_best_candidate():
    decoder = tiny("sam2").mask_decoder
    masks = torch.zeros(2, 4, 8, 8)
    masks[0, 0] = 9.0  # far from the threshold everywhere
    masks[1, 0] = 0.01
    for i in range(1, 4):
        masks[:, i] = i
    ious = torch.tensor([[0.1, 0.5, 0.9, 0.3]]).expand(2, -1)
    chosen, scores = steadier(decoder, masks, ious)
    assert chosen[:, 0, 0, 0].tolist() == [9.0, 2.0]
    assert scores[:, 0].tolist() == pytest.approx([0.1, 0.9])
