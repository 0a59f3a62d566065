"""Tensors stay on the model's device and no value is read: reading one would wait for a GPU.

torch's meta device stands for a GPU: it does not mix with the CPU and has no values to read.
"""

from contextlib import nullcontext

import pytest
import torch
from flmm.adapters.features import PhraseFeatures
from flmm.adapters.layout import single_grid
from flmm.attention.capture import Capture, PhraseRows
from flmm.attention.rows import use_rows_attention
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.sam.geometry import masks_to_image
from flmm.refiners.sam.prompts import encoded_grid
from flmm.refiners.square import Square
from flmm.samples import FrozenFeatures, GroundingBatch, GroundingItem
from flmm.training.task import GroundingTask
from tiny_grounding import tiny_grounded
from tiny_lmms import picture
from transformers import LlamaConfig, LlamaModel

META = torch.device("meta")


@pytest.fixture
def elsewhere(monkeypatch):
    """A grounded LLaVA on the meta device, which knows no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    return tiny_grounded().to(META)


def features(model, lengths: tuple[int, ...]) -> FrozenFeatures:
    """What the frozen models would have said about phrases of these lengths."""
    lmm, prompts = model.lmm, model.sam.prompt_encoder
    maps = torch.zeros(len(lengths), lmm.map_channels, 8, 8, device=META)
    states = torch.zeros(lmm.layers, sum(lengths), lmm.hidden_size, device=META)
    embedding = torch.zeros(prompts.hidden_size, *prompts.image_embedding_size, device=META)
    return FrozenFeatures(
        PhraseFeatures(maps, states, lengths, single_grid(8, 8)),
        ImageEmbedding(embedding, (40, 56)),
    )


def test_images_are_embedded_where_the_encoder_is(elsewhere):
    for embedding in elsewhere.sam.embed([picture(40, 56), picture(30, 20)]):
        assert embedding.features.device == META


@pytest.mark.parametrize("multimask", [False, True])
def test_heads_mix_no_devices_and_look_at_no_value(elsewhere, multimask):
    elsewhere.sam.multimask = multimask
    given = [features(elsewhere, (1, 3)), features(elsewhere, (2,))]
    found = elsewhere.ground([f.phrases for f in given], [f.embedding for f in given])
    assert [masks.refined.shape for masks in found] == [(2, 40, 56), (1, 40, 56)]
    assert all(masks.refined.device == META for masks in found)


def test_a_loss_of_features_that_were_kept(elsewhere):
    items = [
        GroundingItem(
            str(n), torch.zeros(n, 40, 56, dtype=torch.bool), kept=features(elsewhere, (2,) * n)
        )
        for n in (1, 3)
    ]
    losses = GroundingTask(elsewhere).loss(GroundingBatch(tuple(items)).to(META))
    losses["loss"].backward()
    assert losses["loss"].device == META
    assert elsewhere.text_proj.weight.grad.device == META


def test_rows_of_attention():
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = LlamaModel(config).to(META).eval()
    use_rows_attention(model)
    rows, columns = [PhraseRows([torch.tensor([5, 6]), torch.tensor([7])])], [torch.arange(1, 4)]
    ids = torch.zeros(1, 8, dtype=torch.long, device=META)
    # transformers does not read the values of a mask of four dimensions.
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool, device=META)
    with torch.no_grad(), Capture(model, rows=rows, columns=columns) as capture:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    assert capture.maps(0).shape == (2, 4, 3)
    assert capture.maps(0).device == META


def test_which_phrase_a_token_is_of_is_copied_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        "flmm.attention.capture.token_owners",
        lambda lengths, device: made.append(1) or torch.tensor([0, 0, 1]),
    )
    rows = PhraseRows([torch.tensor([5, 6]), torch.tensor([7])])
    layer = torch.arange(6.0).view(1, 3, 2)
    for _ in range(3):
        torch.testing.assert_close(rows.reduce(layer), torch.tensor([[[1.0, 2.0], [4.0, 5.0]]]))
    assert len(made) == 1


def test_an_accelerator_interpolates_all_rows_at_once(monkeypatch):
    """As the pieces that a CPU takes."""
    small = torch.randn(2, 64, 64)
    pieces = masks_to_image(small, (150, 200), square=Square(256))
    monkeypatch.setattr("flmm.refiners.sam.geometry.ROWS_AT_ONCE", 10**6)
    torch.testing.assert_close(
        masks_to_image(small, (150, 200), square=Square(256)), pieces, atol=1e-5, rtol=1e-5
    )
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    assert masks_to_image(small.to(META), (150, 200), square=Square(256)).device == META


def test_positions_are_exact_under_autocast():
    refiner = tiny_grounded().sam
    coarse = [torch.randn(2, 8, 8)]
    text = [[torch.zeros(1, refiner.prompt_encoder.hidden_size)] * 2]
    encode, grid = refiner.prompt_encoder.shared_embedding, (6, 8)

    def positions():
        prompts = refiner.encode_prompts([(40, 56)], coarse, text)
        return encoded_grid(encode, grid, torch.device("cpu")), prompts.sparse

    with torch.no_grad():
        exact = positions()
        with torch.autocast("cpu", torch.bfloat16):
            found = positions()
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
