"""Heads that are chosen once: by their attention, in a file, for every order of maps."""

from dataclasses import replace

import pytest
import torch
from flmm.adapters.features import PhraseFeatures
from flmm.grounders import AttentionHead, ChosenHeads, choose_heads, chosen_heads as module
from flmm.grounders.chosen_heads import channel_numbers, choose_on_drawn_scenes, heads_file_of
from tiny_grounding import Pictures, tiny_grounded
from tiny_lmms import FAMILIES, picture, tiny_lmm
from todays_lmms import TODAY, todays_lmm


@pytest.mark.parametrize("name", [*FAMILIES, *TODAY])
def test_channels_are_numbered_as_maps_lie(name):
    """Each map of a head is found under its number when all others are zero."""
    lmm = todays_lmm(name) if name in TODAY else tiny_lmm(name)
    layout = lmm.family.layout(lmm.family.prepare(picture(60, 90)))
    numbers = channel_numbers(layout, lmm)
    heads = lmm.language_config.num_attention_heads
    assert sorted(numbers.values()) == list(range(lmm.map_channels))

    for one in (AttentionHead(0, 0), AttentionHead(1, heads - 1), AttentionHead(0, 1)):
        rows = torch.zeros(1, lmm.layers * heads, layout.tokens)
        rows[0, one.layer * heads + one.head] = 1
        maps = layout.arrange(rows)
        lit = maps[0].flatten(1).any(1).nonzero().flatten().tolist()
        views = range(len(layout.grids))
        assert sorted(numbers[replace(one, view=view)] for view in views) == lit


def test_the_heads_that_look_at_the_thing_are_chosen(monkeypatch):
    """Maps are made up: head 2 of layer 1 has a spot, the others noise or nothing."""
    lmm = tiny_grounded().lmm
    made = torch.Generator().manual_seed(0)

    def features(samples, merge="mean"):
        found = []
        for one in samples:
            layout = lmm.family.layout(one.image)
            maps = 0.01 * torch.rand(one.text.phrases, lmm.map_channels, 8, 8, generator=made)
            maps[:, 4] = 0.1 * torch.rand(one.text.phrases, 8, 8, generator=made)
            maps[:, 6, 2:4, 3:5] = 1
            found.append(PhraseFeatures(maps, torch.zeros(2, 4, 24), (2,) * len(maps), layout))
        return found

    monkeypatch.setattr(lmm, "forward", features)
    data = Pictures((2, 1, 3) * 4)
    chosen = choose_heads(lmm, [data[i] for i in range(12)], count=1, source="noise")
    assert chosen.heads == (AttentionHead(1, 2),)
    assert (chosen.phrases, chosen.source) == (24, "noise")
    with pytest.raises(ValueError, match="nothing to choose heads on"):
        choose_heads(lmm, [])


def test_heads_are_kept_in_a_file_of_the_lmm(tmp_path):
    lmm = tiny_grounded().lmm
    path = heads_file_of(lmm, tmp_path)
    assert path == heads_file_of(lmm, tmp_path)
    assert path != heads_file_of(tiny_lmm("hpt"), tmp_path)
    kept = ChosenHeads((AttentionHead(1, 2), AttentionHead(0, 3)), "llava", 5, "noise")
    kept.save(path)
    assert ChosenHeads.read(path) == kept
    assert str(kept) == "layer 1 head 2, layer 0 head 3"
    kept.check(lmm)
    with pytest.raises(ValueError, match="2 layers of 4 heads and 1 views"):
        replace(kept, heads=(AttentionHead(0, 4),)).check(lmm)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "heads": []}', '{"heads": 3}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no chosen heads"):
        ChosenHeads.read(path)
    with pytest.raises(FileNotFoundError):
        ChosenHeads.read(tmp_path / "none.json")


def test_drawn_scenes_need_no_pictures(monkeypatch):
    monkeypatch.setattr(module, "SCENES", 3)
    lmm = tiny_grounded().lmm
    chosen = choose_on_drawn_scenes(lmm)
    assert 1 <= len(chosen.heads) <= 3
    chosen.check(lmm)
