"""Referring expressions: the original's texts and masks, protocols, safe pickles, packing and
reading back."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from clim_data.annotations.refer_files import ReferRecords
from clim_data.commands.main import main
from clim_data.faults import BrokenSample
from clim_data.files.pickles import load_plain_pickle
from clim_data.pixels import encode_mask
from clim_data.readers.expression_items import expression_items
from clim_data.readers.expressions import PROTOCOLS, ExpressionRules, ReferringExpressions
from clim_data.sources.write import write_shards


def read_refs(path):
    """The usable references of a file without their names, which hold the file's."""
    refs = ReferRecords.read(path).refs
    return [{field: ref[field] for field in ref if field != "name"} for ref in refs]


@pytest.fixture(scope="module")
def golden_source(golden):
    return golden("demo/text_logic", "flmm").folder / "data"


@pytest.fixture(scope="module")
def source():
    """The set in this repository, whatever CLIM_GOLDEN says: some tests know its content."""
    return Path(__file__).parents[2] / "golden" / "flmm" / "data"


def read(folder, split, refs=None, **options):
    found = [refs] if refs else [path.name for path in (folder / "refcoco").glob("refs(*).p")]
    refs = found[0] if found else "refs(unc).p"
    return ReferringExpressions(
        folder / "images",
        folder / "refcoco" / refs,
        folder / "refcoco" / "instances.json",
        split=split,
        **options,
    )


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)


def change(folder, name, function):
    """Change the json `name` of the copy; a function of its content."""
    path = folder / "refcoco" / name
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def images_of(case):
    """{(split, image file, object or None): (sample name, record)} of a golden case."""
    found = {}
    for name, record in case.meta["samples"].items():
        head, _, place = name.partition("_split")
        found[head.rstrip("0123456789"), record["img"], int(place) if place else None] = (
            name,
            record,
        )
    return found


@pytest.mark.parametrize("case_name", ["refcoco_llava_original", "refcoco_llava_select_first"])
def test_golden_texts_and_masks_of_every_image_and_object(golden, golden_source, case_name):
    case = golden(f"datasets/{case_name}", "flmm")
    sentences = {"original": "all", "select_first": "first"}[case.meta["text_mode"]]
    expected = images_of(case)
    for split in {split for split, _, _ in expected}:
        together = read(golden_source, split, sentences=sentences, together=True, bad_masks="empty")
        samples = {s.image.name: s for s in (together[i] for i in range(len(together)))}
        alone = read(golden_source, split, sentences=sentences, bad_masks="empty")
        singles = {
            name: [s for s in (alone[i] for i in range(len(alone))) if s.image.name == name]
            for name in samples
        }
        for (of_split, image, place), (name, record) in expected.items():
            if of_split != split:
                continue
            sample = samples[image] if place is None else singles[image][place]
            assert [p.text for p in sample.phrases] == record["texts"]
            assert sample.segments == tuple((text, k) for k, text in enumerate(record["texts"]))
            _, masks = sample.load()
            assert np.array_equal(masks, case.arrays[f"{name}__gt_masks"].astype(bool))


def test_the_standard_protocol_has_every_sentence_by_itself(source):
    refs = [ref for ref in read_refs(source / "refcoco" / "refs.json") if ref["split"] == "val"]
    data = read(source, "val", **PROTOCOLS["standard"])
    texts = [
        (ref["ann_id"], s["sent_id"], s["raw"].lower()) for ref in refs for s in ref["sentences"]
    ]
    found = [(s.phrases[0].objects[0], s.phrases[0].sentence_id, s.phrases[0].text) for s in data]
    assert sorted(found) == sorted(texts)
    keys = [data[i].key for i in range(len(data))]
    assert len(set(keys)) == len(keys) == len(texts)
    original = read(source, "val", **PROTOCOLS["original"])
    assert len(original) == len({ref["image_id"] for ref in refs})
    assert sum(len(original[i].phrases) for i in range(len(original))) == len(refs)
    assert [original[i].image_id for i in range(len(original))] == list(
        dict.fromkeys(r["image_id"] for r in refs)
    )


def test_training_draws_one_sentence_an_object_from_seed_and_epoch(source):
    def texts(epoch, **options):
        data = read(source, "train", **PROTOCOLS["train"], **options)
        data.set_epoch(epoch)
        return [[p.text for p in data[i].phrases] for i in range(len(data))]

    epochs = [texts(e, seed=3) for e in range(12)]
    assert epochs == [texts(e, seed=3) for e in range(12)]
    assert len({json.dumps(e) for e in epochs}) > 3
    assert {json.dumps(texts(e, seed=3, redraw=False)) for e in range(4)} == {json.dumps(epochs[0])}
    assert [texts(e, seed=4) for e in range(12)] != epochs
    objects = {
        r["ann_id"] for r in read_refs(source / "refcoco" / "refs.json") if r["split"] == "train"
    }
    assert sum(len(t) for t in epochs[0]) == len(objects)
    data = read(source, "train", sentences="random")
    assert len(data) == len(objects)
    assert len(data.at(0, epoch=5).phrases) == 1


def test_pickle_and_json_hold_the_same_and_python_2_files_are_read(source):
    assert read_refs(source / "refcoco" / "refs(unc).p") == read_refs(
        source / "refcoco" / "refs.json"
    )
    # Python 2 wrote protocol 0 with byte strings: S'...' is latin-1 text here.
    assert load_plain_pickle(b"(lp0\n(dp1\nS'raw'\np2\nS'caf\\xe9'\np3\nsa.") == [{"raw": "café"}]


class Spy:
    """Unpickling this prints."""

    def __reduce__(self):
        return print, ("code of the pickle ran",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, capsys, protocol):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"image_id": Spy()}], protocol))
    with pytest.raises(ValueError, match=r"wants to import \w+\.print.*convert it to json"):
        read_refs(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]q\x00(", "not a pickle of plain data"),
        (b"", "not a pickle of plain data"),
        (pickle.dumps({"a": 1}), "not a list of references"),
        (
            pickle.dumps([{"image_id": 1, "ann_id": [[2]], "split": "val", "sentences": []}]),
            "no usable ann_id",
        ),
        (pickle.dumps([{"image_id": 1, "ann_id": 2, "split": "val"}]), "no usable sentences"),
    ],
)
def test_damaged_and_other_references_are_told(tmp_path, content, message):
    path = tmp_path / "refs(umd).p"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_refs(path)


def test_objects_that_cannot_be_used_are_left_out_and_named(copy):
    def spoil(record):
        by_id = {a["id"]: a for a in record["annotations"]}
        first, second, third, fourth = [a for a in by_id.values() if a["image_id"] == 303]
        first["segmentation"] = [[1, 2, 3, 4], [1, 2, 3]]
        second["segmentation"] = [*second["segmentation"], [5, 5]]
        third["segmentation"] = {"size": [1, 1], "counts": "0"}
        fourth["id"] = 9999

    change(copy, "instances.json", spoil)
    data = read(copy, "train", refs="refs.json", together=True)
    assert data.skipped.counts == {
        "bad segmentation": 1,
        "bad polygon": 1,
        "size mismatch": 1,
        "unknown annotation": 1,
    }
    assert {p.objects for p in data[0].phrases} == {(102,)}
    assert data[0].load()[1].all(0).any()
    kept = read(
        copy, "train", refs="refs.json", together=True, sentences="first", bad_masks="empty"
    )
    areas = kept[0].load()[1].sum((1, 2))
    assert [p.objects[0] for p in kept[0].phrases] == [101, 102, 103]
    assert (areas > 0).tolist() == [False, True, False]


def test_sentences_without_text_are_left_out_and_two_references_share_an_object(copy):
    def spoil(refs):
        refs[0]["sentences"][0]["raw"] = "  "
        refs[1]["ann_id"] = refs[0]["ann_id"]
        refs[1]["sentences"] = [{"raw": "Later", "sent_id": 77}]

    change(copy, "refs.json", spoil)
    data = read(copy, "train", refs="refs.json", together=True)
    assert data.skipped.counts == {"empty expression": 1}
    first = [p.text for p in data[0].phrases if p.objects == data[0].phrases[0].objects]
    assert first == ["later", "left  person"]
    assert (
        read(copy, "train", refs="refs.json", sentences="first", together=True)[0].phrases[0].text
        == "later"
    )


def test_images_may_have_the_names_of_coco_2017(copy):
    change(
        copy,
        "instances.json",
        lambda r: [i.update(file_name="COCO_train2014_" + i["file_name"]) for i in r["images"]],
    )
    data = read(copy, "val", refs="refs.json", together=True)
    assert [data[i].load()[1].shape[0] for i in range(len(data))] == [
        len(data[i].phrases) for i in range(len(data))
    ]


def test_shards_give_back_what_was_packed(source, tmp_path, capsys):
    command = [
        "pack",
        "refcoco",
        "--images",
        str(source / "images"),
        "--refs",
        str(source / "refcoco" / "refs(unc).p"),
    ]
    command += ["--instances-json", str(source / "refcoco" / "instances.json"), "--split", "val"]
    assert (
        main(
            [
                *command,
                "--out",
                str(tmp_path / "out"),
                "--workers",
                "1",
                "--samples-per-shard",
                "1",
            ]
        )
        == 0
    )
    assert "0 written now" not in capsys.readouterr().out
    for options in (*PROTOCOLS.values(), {"sentences": "first"}):
        files, shards = (
            read(source, "val", **options),
            ReferringExpressions.from_shards(tmp_path / "out", **options),
        )
        assert len(files) == len(shards)
        for i in range(len(files)):
            a, b = files.at(i, epoch=2), shards.at(i, epoch=2)
            assert (a.key, a.segments, a.phrases) == (b.key, b.segments, b.phrases)
        assert np.array_equal(files[0].load()[1], shards[0].load()[1])
    assert main([*command[:-1], "testC", "--out", str(tmp_path / "other")]) == 2
    assert "choose from train" in capsys.readouterr().err


def test_wrong_options_are_told(source, tmp_path):
    with pytest.raises(ValueError, match="choose from all, first, random"):
        read(source, "val", sentences="some")
    with pytest.raises(ValueError, match='use "raw"'):
        read(source, "val", text="cooked")
    with pytest.raises(ValueError, match='use "skip" or "empty"'):
        read(source, "val", bad_masks="maybe")
    with pytest.raises(ValueError, match="seed=-1"):
        read(source, "val", seed=-1)
    with pytest.raises(FileNotFoundError, match="no image folder"):
        read(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="no references file"):
        read(source, "val", refs="refs(google).p")


def test_damaged_records_of_shards_are_left_out_and_named(source, tmp_path):
    listing = expression_items(
        source / "images",
        source / "refcoco" / "refs.json",
        source / "refcoco" / "instances.json",
        split="val",
    )
    write_shards(listing, tmp_path)
    shard = tmp_path / "shard-000000.tar"
    whole = [sample.image_id for sample in ReferringExpressions.from_shards(tmp_path)]
    shard.write_bytes(shard.read_bytes().replace(b'"sentences"', b'"sentenced"', 1))
    data = ReferringExpressions.from_shards(tmp_path)
    assert 0 < len(data) < len(whole)
    assert data.skipped.counts == {"malformed expressions": 1}
    assert {data[i].image_id for i in range(len(data))} < set(whole)
    with pytest.raises(BrokenSample, match="malformed expressions"):
        ReferringExpressions.from_shards(tmp_path, together=True)[0]


def test_one_bad_reference_leaves_the_others(copy):
    def spoil(refs):
        refs[0]["ann_id"] = [[1]]
        refs[1]["image_id"] = str(refs[1]["image_id"])

    usable = read(copy, "train", refs="refs.json")
    change(copy, "refs.json", spoil)
    data = read(copy, "train", refs="refs.json")
    assert data.skipped.counts == {"bad reference": 1}
    assert "refs.json, reference 1 (id 1) (no usable ann_id)" in data.skipped.summary()
    assert 0 < len(data) < len(usable)


def test_annotations_of_other_images_and_ids_that_are_there_twice(copy):
    def move(record):
        record["annotations"][0]["image_id"] = next(
            image["id"] for image in record["images"] if image["id"] != 303
        )

    change(copy, "instances.json", move)
    data = read(copy, "train", refs="refs.json")
    assert data.skipped.counts == {"annotation of another image": 1}

    def repeat(record):
        record["annotations"][1]["id"] = record["annotations"][2]["id"]

    change(copy, "instances.json", repeat)
    with pytest.raises(ValueError, match="two annotations have one id"):
        read(copy, "train", refs="refs.json")


def test_sentences_with_one_id_have_keys_of_their_own(copy):
    def spoil(refs):
        for ref in refs:
            for sentence in ref["sentences"]:
                sentence["sent_id"] = 5

    change(copy, "refs.json", spoil)
    data = read(copy, "train", refs="refs.json")
    keys = [data[i].key for i in range(len(data))]
    assert len(set(keys)) == len(keys)


def test_rules_are_one_object(source, tmp_path):
    rules = ExpressionRules(**PROTOCOLS["original"])
    by_rules, by_words = (
        read(source, "val", rules=rules),
        read(source, "val", **PROTOCOLS["original"]),
    )
    assert by_rules.stamp() == by_words.stamp()
    with pytest.raises(ValueError, match="sentences given next to rules"):
        read(source, "val", rules=rules, sentences="all")
    with pytest.raises(ValueError, match="have no effect on shards"):
        ReferringExpressions.from_shards(tmp_path, rules=ExpressionRules(text="sent"))


def generalized(folder, refs):
    """gRefCOCO's layout of the set in `folder`: its references with lists of annotations."""
    path = folder / "refcoco" / "grefs(unc).json"
    path.write_text(json.dumps(refs))
    return read(folder, "val", path.name)


def test_expressions_for_several_things_and_for_none(copy):
    instances = json.loads((copy / "refcoco" / "instances.json").read_text())
    by_image = {}
    for annotation in instances["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    image, annotations = next((i, a) for i, a in by_image.items() if len(a) > 1)
    first, second = (annotation["id"] for annotation in annotations[:2])

    def ref(number, ids, text):
        sentence = {"sent_id": 10 + number, "sent": text, "raw": text, "tokens": text.split()}
        return {
            "ref_id": number,
            "image_id": image,
            "split": "val",
            "sentences": [sentence],
            "ann_id": ids,
            "category_id": ids,
        }

    refs = [ref(0, [first, second], "Both"), ref(1, [-1], "a unicorn"), ref(2, [second], "that")]
    refs += [ref(3, [], "nothing"), ref(4, [first, -1], "mixed"), ref(5, [10**9], "unknown")]
    data = generalized(copy, refs)
    assert data.skipped.counts == {"bad reference": 2, "unknown annotation": 1}
    samples = {sample.phrases[0].text: sample for sample in map(data.__getitem__, range(len(data)))}
    assert {text: sample.phrases[0].objects for text, sample in samples.items()} == {
        "both": (first, second),
        "a unicorn": (),
        "that": (second,),
    }
    assert len({sample.key for sample in samples.values()}) == 3
    assert [samples[text].phrases[0].is_plural for text in ("both", "that")] == [True, False]

    one, two = ref(6, [first], "one"), ref(7, [second], "two")
    alone = generalized(copy, [one, two])
    union = alone[0].load()[1] | alone[1].load()[1]
    np.testing.assert_array_equal(samples["both"].load()[1], union)
    assert not samples["a unicorn"].load()[1].any()

    # Run lengths and polygons have a union, too.
    target = next(a for a in instances["annotations"] if a["id"] == first)
    (mask,) = alone[0].load()[1]
    target["segmentation"] = encode_mask(mask)
    (copy / "refcoco" / "instances.json").write_text(json.dumps(instances))
    np.testing.assert_array_equal(generalized(copy, refs[:1])[0].load()[1], union)


def test_one_id_of_two_references_never_mixes_their_masks(copy):
    refs = json.loads(
        json.dumps(ReferRecords.read(next((copy / "refcoco").glob("refs(*).p"))).refs)
    )
    first = next(ref for ref in refs if ref["split"] == "val")
    other = next(ref for ref in refs if ref["image_id"] == first["image_id"] and ref != first)
    mine = {**first, "ref_id": 5, "ann_id": [first["ann_id"]]}
    # The same id, but it means something else: nothing.
    again = {**first, "ref_id": 5, "ann_id": [-1]}
    assert other
    (copy / "refcoco" / "grefs.json").write_text(json.dumps([mine, again, mine]))
    data = read(copy, "val", refs="grefs.json", sentences="all")
    assert all(data[i].phrases[0].objects == (first["ann_id"],) for i in range(len(data)))
    assert data.skipped.counts["reference twice"] == 2  # one is a copy
    assert len(data) == len(first["sentences"])
