"""A language model with a vision part in front: images in place of their tokens, and generation."""

import json
from dataclasses import replace

import pytest
import torch
from flmm.adapters.authors.joined import JoinedConfig, JoinedLMM, add_image_token
from tiny_grounding import word_tokenizer
from tiny_lmms import llama
from torch import nn

BEYOND = 1000  # an image token that the vocabulary does not have


class Colours(nn.Module):
    """Two tokens of an image: its mean, in every channel, and the negative of it."""

    def forward(self, pixel_values):
        mean = pixel_values.mean((1, 2, 3))[:, None, None].expand(-1, 1, 24)
        return torch.cat([mean, -mean], dim=1)


@pytest.fixture
def lmm():
    torch.manual_seed(0)
    causal = llama().eval()
    return JoinedLMM(causal, Colours(), JoinedConfig("hpt", causal.config, causal.config, BEYOND))


def test_images_stand_in_place_of_their_tokens_in_order(lmm):
    ids = torch.tensor([[5, BEYOND, BEYOND, 6], [BEYOND, 7, BEYOND, 8]])
    pixels = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 2.0)])
    with torch.no_grad():
        found = lmm.model.embed(ids, pixels)
    words = lmm.model.causal.get_input_embeddings().weight
    assert torch.equal(found[0, [0, 3]], words[[5, 6]])
    assert torch.equal(found[1, [1, 3]], words[[7, 8]])
    assert found[0, 1:3, 0].tolist() == [0.5, -0.5]
    assert found[1, [0, 2], 0].tolist() == [2.0, -2.0]
    assert torch.equal(lmm.model.embed(torch.tensor([[5, 6]])), words[[5, 6]][None])


def test_another_number_of_image_tokens_is_refused(lmm):
    ids = torch.tensor([[5, BEYOND, 6]])
    with pytest.raises(ValueError, match="1 image tokens for 2 features of images"):
        lmm.model.embed(ids, torch.ones(1, 3, 4, 4))


def test_generated_tokens_are_those_of_one_pass_after_another(lmm):
    ids, pixels = torch.tensor([[5, BEYOND, BEYOND, 6]]), torch.ones(1, 3, 4, 4)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    found = lmm.generate(ids, pixels, attention_mask=mask, **options)
    assert found[0, :4].tolist() == [5, 0, 0, 6]
    said = ids
    with torch.no_grad():
        for _ in range(4):
            states = lmm.model(said, pixels).last_hidden_state[:, -1]
            following = lmm.model.causal.lm_head(states).argmax(-1, keepdim=True)
            said = torch.cat([said, following], dim=1)
    assert found[0, 4:].tolist() == said[0, 4:].tolist()


def test_what_features_depend_on_has_no_place(lmm):
    moved = replace(lmm.config, name_or_path="elsewhere")
    assert moved.to_dict() == lmm.config.to_dict()
    assert json.loads(json.dumps(moved.to_dict(), default=str))["model_type"] == "hpt"
    assert moved.to_dict() != replace(moved, image_token_id=3).to_dict()


def test_an_image_token_is_added_once():
    tokenizer = word_tokenizer("<picture>")
    first = add_image_token(tokenizer)
    assert add_image_token(tokenizer) == first == tokenizer.encode("<image>")[-1]
