"""Attention of phrases as maps: against the features they come from, and `flmm attention`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flmm import attention_figure, phrase_maps
from flmm.commands.main import main
from flmm.grounders.heads import Reading, samples_of_image
from flmm.grounders.phrase_maps import maps_of_features
from PIL import Image
from tiny_grounding import save_tiny_grounded, word_tokenizer
from tiny_lmms import picture, tiny_lmm

PHRASES = ["a red car", "the sky"]


def reader(family):
    lmm = tiny_lmm(family)
    lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
    return lmm


@pytest.mark.parametrize("family", ["llava", "llava_next_mistral", "mgm_hd"])
@torch.no_grad()
def test_maps_are_those_of_the_lmm(family):
    lmm = reader(family)
    image = Image.fromarray(np.asarray(picture(60, 90, seed=1)))
    found = phrase_maps(lmm, image, PHRASES, heads=3)
    reading = Reading(each_alone=True)
    for number, phrase in enumerate(PHRASES):
        (sample,) = samples_of_image(lmm, image, [phrase], reading, name="it")
        (features,) = lmm([sample])
        heads = lmm.map_channels // lmm.layers
        assert found.shares.shape == (2, lmm.layers, heads)
        assert found.layers.shape[:2] == (2, lmm.layers)
        assert found.focused.shape[:2] == (2, 3)
        # All channels once: the mean over layers is the mean over channels.
        torch.testing.assert_close(found.layers[number].mean(0), found.mean[number])
        layer, head = found.heads[number, 0].tolist()
        assert 0 <= layer < lmm.layers
        assert 0 <= head < heads
        # The channel of that layer and head, by the order that the layout states.
        grids = features.layout.grids
        per_view = heads // len(grids)
        view, own = divmod(head, per_view)
        channel = (view * lmm.layers + layer) * per_view + own
        if features.layout.heads is not None:
            channel = layer * heads + head
        share = features.maps[0, channel].sum() * grids[view].numel() / grids[-1].numel()
        torch.testing.assert_close(found.shares[number, layer, head], share)
        one = replace(features, maps=features.maps[:, [channel] * len(grids)])
        (alone,) = maps_of_features(one, [phrase], layers=1, heads=1).mean
        torch.testing.assert_close(alone, found.focused[number, 0])


def test_the_most_focused_heads_come_first():
    lmm = reader("llava")
    (sample,) = samples_of_image(
        lmm, picture(40, 40), ["a car"], Reading(each_alone=True), name="it"
    )
    with torch.no_grad():
        (features,) = lmm([sample])
    features.maps[:] = 0.01
    features.maps[0, 1, 2, 3] = 5  # one cell, much attention
    features.maps[0, 2, 2, 3] = 1e-6
    features.maps[0, 2] *= 1e-6  # looks elsewhere
    found = maps_of_features(features, ["a car"], layers=lmm.layers, heads=2)
    heads = lmm.map_channels // lmm.layers
    assert found.heads[0, 0].tolist() == [1 // heads, 1 % heads]
    assert found.focused[0, 0].max() > 0.5 / 16  # finer cells share the peak
    with pytest.raises(ValueError, match="ask for 1 or more"):
        phrase_maps(lmm, picture(40, 40), ["a car"], heads=0)


def test_the_command_writes_a_picture_and_arrays(tmp_path, capsys):
    save_tiny_grounded(tmp_path)
    Image.fromarray(np.asarray(picture(40, 56))).save(tmp_path / "photo.png")
    words = ["attention", str(tmp_path / "photo.png"), *PHRASES, "--device", "cpu", "--heads", "2"]
    words += ["--lmm", str(tmp_path / "lmm"), "-o", str(tmp_path / "seen.png")]
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("% of the attention is on the image") == 2
    with np.load(tmp_path / "seen.npz") as arrays:
        assert arrays["phrases"].tolist() == PHRASES
        assert arrays["heads"].shape == (2, 2, 2)
        assert arrays["mean"].shape[0] == 2
    assert Image.open(tmp_path / "seen.png").width > 400
    assert main([*words[:-1], str(tmp_path / "photo.png")]) == 2
    assert "would replace the input picture" in capsys.readouterr().err
    assert main([*words, "--load-4bit"]) == 2
    assert "4-bit weights need a GPU" in capsys.readouterr().err
    assert main(["attention", "http://127.0.0.1:9/photo.png", *words[2:]]) == 2
    assert "http://127.0.0.1:9/photo.png" in capsys.readouterr().err


def test_a_figure_has_a_panel_for_each_map():
    lmm = reader("llava")
    image = Image.fromarray(np.asarray(picture(40, 56)))
    maps = phrase_maps(lmm, image, "a car", heads=4)
    figure = attention_figure(image, maps)
    titles = [axis.get_title() for axis in figure.axes]
    assert not any(axis.axison for axis in figure.axes)
    assert titles[:2] == ["image", "all heads"]
    assert sum(title.startswith("layer") for title in titles) == 4 + lmm.layers
