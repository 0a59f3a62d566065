"""The embedded drawings: what is in the set, what is held out, and the shards made of it."""

import io
import json
import tarfile

import numpy as np
import pytest
from clim_data import MosaicConfig, MosaicLoader
from clim_data.drawings.build_emoji import (
    SOURCES,
    common_names,
    svg_document,
    synonyms,
    visible_names,
)
from clim_data.drawings.emoji import EMBEDDED, caption_of, load_emoji, write_emoji_shards
from PIL import Image


@pytest.fixture(scope="module")
def emoji():
    return load_emoji()


def test_every_drawing_of_the_build_is_there_with_its_licence(emoji):
    assert {vendor: len(names) for vendor, names in emoji.drawings.items()} == {
        "noto": 1649,
        "twemoji": 1649,
        "fluent-emoji-flat": 1543,
        "emojione": 1138,
    }
    assert len(emoji.names) == 1649
    for source in SOURCES:
        notice = (EMBEDDED / f"LICENSE-{source.vendor}.txt").read_text()
        assert source.license in notice
        assert source.version in notice
        assert emoji.sources["vendors"][source.vendor]["license"] == source.license


def test_drawings_decode_to_rgba_with_a_picture_in_each(emoji):
    for vendor in emoji.vendors:
        image = emoji.image(vendor, "hot-dog")
        assert image.shape == (64, 64, 4)
        assert image.dtype == np.uint8
        assert (image[..., 3] > 0).mean() > 0.2
    assert (emoji.pixels[..., 3] > 0).any((1, 2)).all()
    with pytest.raises(ValueError, match=r"draws no 'no-such-thing'; choose from \.drawings"):
        emoji.image("noto", "no-such-thing")


def test_split_keeps_vendor_concepts_and_synonyms_apart(emoji):
    split = emoji.split()
    assert split.test_vendor not in split.train_vendors
    assert len(split.test_concepts) == 120
    assert len(split.val_concepts) == 100
    parts = [set(split.train_names), set(split.val_concepts), set(split.test_concepts)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(emoji.canonical)
    assert set(split.train_concepts) == parts[0] & set(emoji.concepts)
    # Two names of one drawing must never be two classes, nor lie on both sides of the split.
    for group in emoji.synonyms:
        assert len(set(group) & set(emoji.canonical)) == 1
    assert split == emoji.split(seed=0)
    assert split.test_concepts != emoji.split(seed=1).test_concepts


def test_object_like_concepts_leave_out_signs_and_persons(emoji):
    assert {"hot-dog", "cat", "castle", "man"} <= set(emoji.concepts)
    out = {
        "letter-a",
        "ten-thirty",
        "up-arrow",
        "ok-button",
        "atm-sign",
        "man-cook",
        "family-man-woman-girl",
    }
    assert out <= set(emoji.names)
    assert not out & set(emoji.concepts)


def test_shards_hold_the_training_part_only_and_are_the_same_each_time(emoji, tmp_path):
    split = emoji.split()
    first, second = write_emoji_shards(tmp_path / "a"), write_emoji_shards(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    keys, hidden = set(), set(split.test_concepts) | set(split.val_concepts)
    for path in first:
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    meta = json.load(tar.extractfile(member))
                    assert meta["vendor"] in split.train_vendors
                    assert meta["name"] not in hidden
                    assert meta["caption"] == caption_of(meta["name"])
                    keys.add((meta["vendor"], meta["name"]))
    assert keys == {
        (v, n) for v in split.train_vendors for n in split.train_names if emoji.has(v, n)
    }


def test_loader_reads_the_shards(tmp_path):
    shards = write_emoji_shards(tmp_path, per_shard=1000)
    config = MosaicConfig(canvas_px=96, single_px=32, mix={2: 1, 3: 1})
    batch = next(
        iter(MosaicLoader([str(shards[0])], batch_size=16, mosaic=config, background="random"))
    )
    assert batch.mosaics.shape == (2, 3, 96, 96)
    assert batch.singles.shape == (3, 3, 32, 32)
    assert len(set(batch.captions)) > 8


def test_missing_zip_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m clim_data\.drawings\.build_emoji"):
        load_emoji(tmp_path / "none.zip")


def test_build_filters_names_and_resolves_aliases():
    icons = {
        "width": 8,
        "icons": {
            "cat": {"body": "<path/>", "height": 4},
            "old": {"body": "", "hidden": True},
            "cat-dark": {"body": ""},
        },
        "aliases": {"kitty": {"parent": "cat"}, "tac": {"parent": "cat", "hFlip": True}},
    }
    names = visible_names(icons)
    assert names == {"cat", "kitty", "cat-dark"}
    three = {
        "a": names,
        "b": names,
        "c": names | {"keycap-1", "flag-x"},
        "d": {"keycap-1", "alone"},
    }
    assert common_names(three) == ["cat", "kitty"]
    assert common_names({"a": names, "b": names}) == []
    svg = svg_document(icons, "kitty")
    assert 'viewBox="0 0 8 4"' in svg
    assert "<path/>" in svg
    assert synonyms({"a": icons}, ["cat", "kitty"]) == [["cat", "kitty"]]


def test_a_drawing_rendered_anew_equals_the_embedded_one(emoji):
    render = pytest.importorskip("clim_data.drawings.build_emoji", reason="needs resvg-py").render
    pytest.importorskip("resvg_py")
    square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="4" height="8" fill="#f00"/></svg>'
    pixels = render(square, 16)
    assert (pixels[:, :7] == [255, 0, 0, 255]).all()
    assert (pixels[:, 9:] == 0).all()
    encoded = Image.open(io.BytesIO(emoji.encoded("noto", ("cat",))[0]))
    assert np.array_equal(np.asarray(encoded.convert("RGBA")), emoji.image("noto", "cat"))
