import hashlib
import os

import pytest
import torch
import torch.nn.functional as F
from clim_models.text.class_embeddings import embed_classes, embedding_key
from clim_models.text.prompts import NAME_TEMPLATE, PHOTO_TEMPLATE, VILD_TEMPLATES, class_prompts
from tolerance import float32_sum
from torch import nn


class LetterModel(nn.Module):
    """The parts of a RegionModel that embed_classes needs: counts of letters, projected."""

    def __init__(self, channels=6):
        super().__init__()
        self.clip = nn.ModuleDict({"text": nn.Linear(128, channels), "visual": nn.Linear(3, 3)})
        self.calls = 0

    def tokenizer(self, texts):
        return torch.stack(
            [torch.bincount(torch.tensor([ord(c) for c in t]), minlength=128) for t in texts]
        )

    def encode_text(self, tokens, normalize=True):
        self.calls += 1
        features = self.clip["text"](tokens.float())
        return F.normalize(features, dim=-1) if normalize else features


def test_golden_class_prompts(golden):
    for name, expected in golden("case12_text").meta["prompts"].items():
        prompts = class_prompts(name)
        assert len(prompts) == expected["count"]
        assert prompts[: len(expected["first"])] == expected["first"]
        assert prompts[-len(expected["last"]) :] == expected["last"]
        assert sum(prompt.startswith("This is ") for prompt in prompts) == expected["with_prefix"]
        assert (
            hashlib.sha256("\n".join(prompts).encode()).hexdigest()
            == expected["sha256_of_joined_by_newline"]
        )


def test_golden_tokens(golden):
    import open_clip

    case = golden("case12_text")
    expected = case.tensor("out/tokens")
    tokens = open_clip.get_tokenizer("ViT-B-16")(
        case.meta["texts"], context_length=expected.shape[1]
    )
    assert torch.equal(tokens, expected)


def test_article_follows_the_name_as_given():
    assert class_prompts("Orange", PHOTO_TEMPLATE) == ["a photo of a orange."]
    assert class_prompts("orange_juice", PHOTO_TEMPLATE) == ["a photo of an orange juice."]
    assert class_prompts("umbrella.", NAME_TEMPLATE) == ["umbrella"]


@pytest.mark.parametrize(
    ("name", "templates", "fix"), [("", VILD_TEMPLATES, "name"), ("cat", ["a photo"], "{}")]
)
def test_bad_names_and_templates_are_told(name, templates, fix):
    with pytest.raises(ValueError, match=fix):
        class_prompts(name, templates)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_embeddings_are_normalised_means_of_unit_rows(batch_size):
    model = LetterModel()
    names = ["cat", "cabinet/shelf", "hot_dog"]
    seen = []
    rows = embed_classes(
        model, names, batch_size=batch_size, progress=lambda done, total: seen.append((done, total))
    )
    slow = []
    with torch.no_grad():
        for name in names:
            features = [
                F.normalize(model.clip["text"](model.tokenizer([p])[0].float()), dim=0)
                for p in class_prompts(name)
            ]
            slow.append(F.normalize(torch.stack(features).mean(0), dim=0))
    torch.testing.assert_close(rows, torch.stack(slow), atol=float32_sum(200), rtol=0)
    assert seen[-1] == (189, 189)
    assert model.training  # left as it was


def _cut(path):
    path.write_bytes(path.read_bytes()[:300])


def _zero_the_end(path):
    data = path.read_bytes()
    path.write_bytes(data[:-24] + bytes(24))


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _zero_the_end, _empty])
def test_a_damaged_cache_is_computed_again(tmp_path, caplog, damage):
    model = LetterModel()
    first = embed_classes(model, ["cat", "dog"], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    assert torch.equal(embed_classes(model, ["cat", "dog"], cache=tmp_path), first)
    assert f"{path} is damaged" in caplog.text
    caplog.clear()
    assert torch.equal(embed_classes(model, ["cat", "dog"], cache=tmp_path), first)
    assert not caplog.text


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    rows = embed_classes(LetterModel(), ["cat", "dog"], cache=tmp_path / "file")
    assert rows.shape[0] == 2
    assert "cannot be written" in caplog.text


def test_cache_is_read_back_and_depends_on_weights_templates_and_names(tmp_path):
    model = LetterModel()
    first = embed_classes(model, ["cat", "dog"], cache=tmp_path)
    calls = model.calls
    assert torch.equal(embed_classes(model, ["cat", "dog"], cache=tmp_path), first)
    assert model.calls == calls
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]

    assert not torch.equal(embed_classes(model, ["dog", "cat"], cache=tmp_path), first)
    embed_classes(model, ["cat", "dog"], templates=NAME_TEMPLATE, cache=tmp_path)
    assert len(os.listdir(tmp_path)) == 3

    key = embedding_key(model, ["cat"], NAME_TEMPLATE)
    with torch.no_grad():
        model.clip["visual"].weight.add_(1)
    assert embedding_key(model, ["cat"], NAME_TEMPLATE) == key
    with torch.no_grad():
        model.clip["text"].bias[0] += 1e-3
    assert embedding_key(model, ["cat"], NAME_TEMPLATE) != key


def test_cache_depends_on_layers_and_tokens():
    """`ViT-B-32` and `ViT-B-32-quickgelu` have equal weights."""
    keys = set()
    for activation in (nn.GELU(), nn.Tanh()):
        model = LetterModel()
        nn.init.ones_(model.clip["text"].weight)
        nn.init.zeros_(model.clip["text"].bias)
        model.clip["act"] = activation
        keys.add(embedding_key(model, ["cat"], NAME_TEMPLATE))

    model.tokenizer = lambda texts: LetterModel().tokenizer([text.upper() for text in texts])
    keys.add(embedding_key(model, ["cat"], NAME_TEMPLATE))
    assert len(keys) == 3


def test_partitioned_weights_are_refused():
    model = LetterModel()
    model.clip["text"].weight = nn.Parameter(torch.empty(0))
    with pytest.raises(ValueError, match="GatheredParameters"):
        embedding_key(model, ["cat"], NAME_TEMPLATE)


def test_a_string_is_not_a_list_of_names():
    with pytest.raises(ValueError, match="list"):
        embed_classes(LetterModel(), "cat")
