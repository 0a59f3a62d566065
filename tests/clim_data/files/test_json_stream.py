import json

import pytest
from clim_data.files.json_stream import stream_json, write_coco

RECORD = {
    "info": {"year": 2017, "nested": [1, 2]},
    "images": [{"id": 1, "file_name": 'ä"},{.jpg'}, {"id": 12345, "file_name": "b.jpg"}],
    "numbers": [1, -23, 4.5e-3, None, True, "x,]"],
    "empty": [],
    "last": 77,
}


def items_of(record):
    for name, value in record.items():
        if isinstance(value, list):
            yield from ((name, item) for item in value)
        else:
            yield name, value


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_items_come_as_json_loads_gives_them_however_the_file_is_cut(tmp_path, chunk, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(RECORD, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(stream_json(path, chunk=chunk)) == list(items_of(RECORD))


def test_a_list_at_the_top_gives_its_items(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1}, {"image_id": 2}]')
    assert list(stream_json(path, chunk=4)) == [("", {"image_id": 1}), ("", {"image_id": 2})]


@pytest.mark.parametrize(
    "text",
    ["", "7", '{"a": [1, 2', '{"a": [1 2]}', '{"a" [1]}', "[1] trailing", '{"a": [tru]}', "[12"],
)
def test_what_is_no_whole_json_is_named(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json is not a whole json file .* fetch it again"):
        list(stream_json(path, chunk=3))


def test_only_a_window_of_the_file_is_held(tmp_path):
    path = tmp_path / "long.json"
    path.write_text(
        json.dumps({"annotations": [{"id": i, "bbox": [0.5, 1, 2, 3]} for i in range(5000)]})
    )
    from clim_data.files import json_stream

    longest = 0

    class Watched(json_stream._Text):
        def _fill(self, size):
            nonlocal longest
            more = super()._fill(size)
            longest = max(longest, len(self.window))
            return more

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_Text", Watched)
        assert sum(1 for _ in stream_json(path, chunk=1000)) == 5000
    assert longest < 4000 < path.stat().st_size


def test_written_objects_read_back_and_appear_only_when_whole(tmp_path):
    path = tmp_path / "out" / "coco.json"
    write_coco(path, {**RECORD, "images": iter(RECORD["images"])})
    assert json.loads(path.read_bytes()) == RECORD

    def breaks():
        yield {"id": 1}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_coco(path, {"images": breaks()})
    assert json.loads(path.read_bytes()) == RECORD
    assert [p.name for p in path.parent.iterdir()] == ["coco.json"]
