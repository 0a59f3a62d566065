"""Vocabularies: what a file may say, and the vector of a class."""

import json

import pytest
import torch
import torch.nn.functional as F
from clim_models import TINY, create_model
from clim_models.text import NAME_TEMPLATE, REJECTED, Vocabulary, embed_classes, embed_vocabulary
from clim_models.text.vocabulary import EmbeddedVocabulary


def test_names_are_phrases_and_keep_their_order():
    vocabulary = Vocabulary.of(["cat", "red car"])
    assert vocabulary.names == ("cat", "red car")
    assert [dict(one.phrases) for one in vocabulary] == [{"cat": 1.0}, {"red car": 1.0}]
    assert Vocabulary.of(vocabulary) is vocabulary
    assert len(vocabulary) == 2


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat", r"pass a list, such as \['cat'\]"),
        ([], "name at least one class"),
        (["cat", " "], "give every class a name"),
        (["cat", "Cat"], "'Cat' twice"),
        (["hot_dog", "hot dog"], "twice"),
        ({"cat": {"phrases": "kitten"}}, r"write a list, such as \['kitten'\]"),
        ({"cat": {"phrases": ["cat", "cat"]}}, "an entry twice under 'phrases'"),
        ({"cat": {"phrases": [""]}}, "empty text under 'phrases'"),
        ({"cat": {"phrases": []}}, "neither phrases nor examples"),
        ({"cat": {"phrases": {"cat": 0}}}, "write a number from 1e-06"),
        ({"cat": {"phrase": ["cat"]}}, "legal fields are phrases, not, examples"),
        ({"cat": ["kitten"]}, "write a mapping"),
        ({"cat": {"not": ["dog"]}, "dog": {}}, "take it out of one of them"),
    ],
)
def test_wrong_vocabularies_are_refused_with_the_fix(classes, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(classes)


def test_a_file_is_read_and_its_doubles_are_refused(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({"cat": {"not": ["lynx"]}, "sofa": {}}))
    assert Vocabulary.read(path).rejects == ("lynx",)
    path.write_text('{"cat": {}, "cat": {}}')
    with pytest.raises(ValueError, match="'cat' twice"):
        Vocabulary.read(path)
    path.write_text("cat\ndog")
    with pytest.raises(ValueError, match="is not JSON"):
        Vocabulary.read(path)
    with pytest.raises(FileNotFoundError, match="check the path"):
        Vocabulary.read(tmp_path / "other.json")


def test_a_class_vector_is_the_weighted_mean_of_phrases_and_examples():
    model = create_model(TINY, pretrained=None)
    picture = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    entry = {"phrases": {"a": 2, "b": 1}, "not": ["c"], "examples": {"one.jpg": 3}}
    found = embed_vocabulary(
        model, {"x": entry, "y": {}}, templates=NAME_TEMPLATE, read_example=lambda name: picture
    )

    words = embed_classes(model, ["a", "b", "y", "c"], templates=NAME_TEMPLATE)
    resized = F.interpolate(picture[None].float(), model.image_size, mode="bicubic", antialias=True)
    pixels = model.normalize_pixels(resized.round().clamp(0, 255).to(torch.uint8))
    image = model.encode_image(pixels)[0].detach()
    expected = F.normalize(2 * words[0] + words[1] + 3 * image, dim=0)
    torch.testing.assert_close(found.embeddings, torch.stack([expected, words[2]]))
    torch.testing.assert_close(found.rejects, words[3:])


def test_examples_need_a_reader():
    with pytest.raises(ValueError, match="pass read_example"):
        embed_vocabulary(
            create_model(TINY, pretrained=None), {"mug": {"phrases": [], "examples": ["mug.jpg"]}}
        )


def test_a_rejected_phrase_never_wins():
    vocabulary = Vocabulary.of({"dog": {"not": ["wolf"]}, "sofa": {}})
    embedded = EmbeddedVocabulary(vocabulary, torch.eye(3)[:2], torch.eye(3)[2:])
    labels, cosines = embedded.label(torch.tensor([[2.0, 0, 1], [0, 1, 0], [1, 0, 2]]))
    assert labels.tolist() == [0, 1, REJECTED]
    torch.testing.assert_close(cosines[0], torch.tensor(2 / 5**0.5))


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "null", "true", '"cat"'])
def test_files_that_hold_something_else_are_refused(tmp_path, text):
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(ValueError, match=r"write|pass a list"):
        Vocabulary.read(tmp_path / "vocabulary.json")


@pytest.mark.parametrize("weight", [1e39, 1e-60, float("inf")])
def test_weights_whose_vectors_would_be_no_numbers_are_refused(weight):
    with pytest.raises(ValueError, match="write a number from 1e-06 to 1e"):
        Vocabulary.of({"cat": {"phrases": {"cat": weight}}})


@pytest.mark.parametrize(
    "names", [["caf\u00e9", "cafe\u0301"], ["cat", "cat\u200b"], ["\ufeff", "cat"]]
)
def test_names_that_look_alike_or_like_nothing_are_refused(names):
    with pytest.raises(ValueError, match=r"twice|is empty"):
        Vocabulary.of(names)


@pytest.mark.parametrize("classes", [["dog \ud83d"], {"dog": {"phrases": ["a dog \udcff"]}}])
def test_half_a_character_is_named(classes):
    with pytest.raises(ValueError, match="has half a character"):
        Vocabulary.of(classes)
