"""Text towers without columns of padding: the same features and gradients as with them."""

import pytest
import torch
from clim_models import RegionModel, create_model
from clim_models.text.columns import CausalText, drop_padding, encode_text
from open_clip.model import CLIP, CustomTextCLIP
from tiny_towers import build_coca

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 8}
TEXT = {"context_length": 40, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
BOS, EOS = 62, 63


def build(kind: type = CLIP, **text):
    torch.manual_seed(0)
    clip = kind(embed_dim=24, vision_cfg=VISION, text_cfg={**TEXT, **text}, quick_gelu=True)
    with torch.no_grad():
        for p in clip.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return clip.eval()


def texts(*lengths: int, context: int = 40) -> torch.Tensor:
    """Token ids of texts with so many words, between the marks of their start and their end."""
    ids = torch.zeros(len(lengths), context, dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[0] = BOS
        row[1 : length + 1] = torch.randint(1, BOS, (length,))
        row[length + 1] = EOS
    return ids


CAUSAL = {
    "CLIP": lambda: build(),
    "CustomTextCLIP": lambda: build(CustomTextCLIP),
    "end of text by its id": lambda: build(CustomTextCLIP, pool_type="eos", eos_id=EOS),
    "projection with a bias": lambda: build(CustomTextCLIP, proj_bias=True),
    "no projection": lambda: build(CustomTextCLIP, proj_type="none"),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_features_and_gradients_are_those_of_all_columns(name):
    clip = CAUSAL[name]()
    ids = texts(3, 9, 0)
    cut = drop_padding(clip, ids)
    assert cut.shape == (3, 16)

    found = {}
    for label, call in (
        ("all", lambda: clip.encode_text(ids, normalize=True)),
        ("cut", lambda: encode_text(clip, cut, normalize=True)),
    ):
        clip.zero_grad()
        features = call()
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        grads = {n: p.grad.clone() for n, p in clip.named_parameters() if p.grad is not None}
        found[label] = features, grads

    torch.testing.assert_close(found["cut"][0], found["all"][0], atol=1e-6, rtol=0)
    assert found["cut"][1].keys() == found["all"][1].keys()
    for key, grad in found["all"][1].items():
        torch.testing.assert_close(found["cut"][1][key], grad, atol=1e-6, rtol=1e-4)


def test_a_text_that_fills_the_context_runs_whole():
    clip = build()
    ids = texts(3, 38)
    assert drop_padding(clip, ids).shape == ids.shape
    assert torch.equal(
        encode_text(clip, ids, normalize=False), clip.encode_text(ids, normalize=False)
    )


@pytest.mark.parametrize(
    "text",
    [
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"no_causal_mask": True, "pool_type": "last"},
    ],
)
def test_towers_that_read_their_padding_keep_it(text):
    clip = build(CustomTextCLIP, **text)
    ids = texts(3)
    assert CausalText.of(clip) is None
    assert torch.equal(drop_padding(clip, ids), ids)
    assert torch.equal(
        encode_text(clip, ids, normalize=True), clip.encode_text(ids, normalize=True)
    )


def test_towers_that_pad_their_texts_themselves_run_whole():
    clip = build(CustomTextCLIP)
    clip.text.variable_text = True  # as open_clip 4 marks them
    assert CausalText.of(clip) is None


def test_coca_appends_its_class_token_behind_the_padding():
    model = build_coca()
    ids = texts(2, context=8)
    assert CausalText.of(model.clip) is None
    assert torch.equal(drop_padding(model.clip, ids), ids)
    with torch.no_grad():
        assert torch.equal(model.encode_text(ids), model.clip.encode_text(ids, normalize=True))


def test_towers_from_hugging_face_mask_their_padding():
    model = create_model("clim-tiny")
    ids = model.tokenizer(["a red car", "a dog that runs on the beach"])
    cut = model.drop_padding(ids)
    assert cut.shape[1] < ids.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_text(cut), model.clip.encode_text(ids, normalize=True), atol=1e-6, rtol=0
        )


def test_no_texts_and_ids_elsewhere_pass():
    clip = build()
    none = torch.zeros(0, 40, dtype=torch.int64)
    assert drop_padding(clip, none) is none
    elsewhere = texts(3).to("meta")
    assert drop_padding(clip, elsewhere) is elsewhere


def test_the_model_drops_padding_by_itself():
    model = RegionModel(build())
    seen = []
    model.clip.token_embedding.register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape))
    )
    with torch.no_grad():
        model.encode_text(texts(4, 12))
    assert seen == [(2, 16)]
