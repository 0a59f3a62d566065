"""The images that records name, in a folder and in shards."""

import json

import pytest
from clim_data import ImageCaptions, InstanceRegions
from clim_data.faults import BrokenSample
from clim_data.sources.images import open_named_images
from clim_data.sources.items import folder_items
from clim_data.sources.write import write_shards

NAMES = ["a/1.png", "a/2.png", "b.png"]


@pytest.fixture
def places(tmp_path, images):
    """The same three images in a folder and in shards."""
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(images.encoded(images.pixels(number, 12, 16), "PNG"))
        (folder / name).with_suffix(".txt").write_text("a cat")
    write_shards(folder_items(folder), tmp_path / "shards", samples_per_shard=2)
    return folder, tmp_path / "shards"


def test_names_are_found_in_both(places):
    folder, shards = places
    names = [*NAMES, "no.png"]
    files, samples = open_named_images(folder, names), open_named_images(str(shards), names)
    pattern = open_named_images(f"{shards}/shard-{{000000..000001}}.tar", names)
    for place, name in enumerate(NAMES):
        found = files.find(place)
        assert (found.source, found.name) == (folder / name, str(folder / name))
        assert samples.find(place).source == pattern.find(place).source == found.source.read_bytes()
    assert files.stamp(0) is not None
    assert samples.stamp(0) is files.stamp(3) is None
    for opened in (files, samples):
        for look in (opened.check, opened.find):
            with pytest.raises(BrokenSample, match=r"no\.png: missing image"):
                look(3)


def test_a_bare_name_finds_a_file_below_only_where_it_is_alone(places):
    folder, shards = places
    names = ["2.png", "b.png"]
    assert open_named_images(folder, names).find(0).source == folder / "a" / "2.png"
    data = (folder / "a" / "2.png").read_bytes()
    assert open_named_images(str(shards), names).find(0).source == data
    (folder / "c").mkdir()
    (folder / "c" / "2.png").write_bytes(b"another")
    with pytest.raises(BrokenSample, match="missing image"):
        open_named_images(folder, names).find(0)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image folder .*nowhere: give the folder"):
        open_named_images(tmp_path / "nowhere", NAMES)
    with pytest.raises(FileNotFoundError, match="matches no file"):
        open_named_images(f"{tmp_path}/x-*.tar", NAMES)


def test_evaluations_read_the_same_from_both(places, tmp_path):
    records = [
        {"id": n, "file_name": name, "height": 12, "width": 16} for n, name in enumerate(NAMES)
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 10, 9], "caption": f"cat {n}"}
        for n in range(3)
    ]
    path = tmp_path / "i.json"
    content = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(content))

    regions = [InstanceRegions(p, path, image_px=32, stride=16, masks=False) for p in places]
    captions = [ImageCaptions(p, path, 8) for p in places]
    for one, other in (regions, captions):
        assert len(one) == len(other) == 3
        for place in range(3):
            assert (one[place].image == other[place].image).all()
    assert [len(regions[1][place].labels) for place in range(3)] == [1, 1, 1]
    assert [item.captions for item in captions[1]] == [["cat 0"], ["cat 1"], ["cat 2"]]
