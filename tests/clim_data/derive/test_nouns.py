import json
import sys

import pytest
from clim_data.commands.main import main
from clim_data.derive.nouns import (
    NounRules,
    count_nouns,
    hanta_tagger,
    read_caption_texts,
    singular,
    write_nouns,
)
from clim_data.faults import SkipReport

CAPTIONS = [
    "A man riding a wave on top of a surfboard.",
    "Two dogs are sitting next to a teddy bear on the couches",
    "A bathroom sink with toothbrushes and knives.",
    "The dog stands near a sink; a dog sleeps on the couch!",
    "A woman and two men stand by a stop sign.",
    "A teddy bear sits on a bench under autumn leaves, one leaf is red",
]
KNOWN = {
    "man",
    "wave",
    "dog",
    "dogs",
    "bear",
    "sink",
    "men",
    "sign",
    "teddy",
    "leaf",
    "leaves",
    "wolves",
    "run",
}
LEMMAS = {"dogs": "dog", "men": "man", "leaves": "leave", "wolves": "wolf"}


def toy_tagger(words):
    return [(word, LEMMAS.get(word, word), word in KNOWN) for word in words]


@pytest.mark.parametrize(
    ("word", "lemma", "expected"),
    [
        ("dogs", "dog", "dog"),
        ("men", "man", "man"),
        ("pants", "pants", "pants"),
        ("bus", "bus", "bus"),
        ("leaves", "leave", "leaf"),
        ("skis", "sky", "ski"),
        ("buses", "bus", "bus"),
        ("benches", "bench", "bench"),
        ("ferries", "ferry", "ferry"),
        ("pies", "pie", "pie"),
        ("horses", "horse", "horse"),
        ("knives", "knife", "knife"),
        ("zorbles", "zorbl", "zorble"),
    ],
)
def test_plurals_are_taken_back_to_their_most_frequent_origin(word, lemma, expected):
    assert (
        singular(word, lemma, {"leaf": 9, "leave": 2, "sky": 50, "bus": 3, "horse": 4}) == expected
    )


def test_nouns_count_once_a_caption_and_plurals_as_their_singular():
    number, counts = count_nouns([*CAPTIONS, "", "  "], toy_tagger, NounRules(min_count=1))
    assert number == 6
    assert counts == {
        "bear": 2,
        "dog": 2,
        "leaf": 2,
        "man": 2,
        "sink": 2,
        "teddy": 2,
        "sign": 1,
        "wave": 1,
    }
    assert list(counts) == ["bear", "dog", "leaf", "man", "sink", "teddy", "sign", "wave"]
    assert list(count_nouns(CAPTIONS, toy_tagger, NounRules(min_count=2))[1]) == list(counts)[:6]


def test_words_that_are_mostly_no_nouns_are_left_out():
    def tagger(words):
        return [(word, word, word == "run" and words[0] == "a") for word in words]

    captions = ["a run", "they run", "we run"]
    assert count_nouns(captions, tagger, NounRules(min_count=1))[1] == {}
    assert count_nouns(captions, tagger, NounRules(min_count=1, min_share=0.3))[1] == {"run": 1}


def test_compounds_are_pairs_of_neighbouring_nouns():
    rules = NounRules(min_count=2, compounds=True)
    assert (
        count_nouns([*CAPTIONS, "teddy dogs", "a teddy dog"], toy_tagger, rules)[1]["teddy bear"]
        == 2
    )
    assert count_nouns(["teddy dogs", "a teddy dog"], toy_tagger, rules)[1] == {
        "dog": 2,
        "teddy": 2,
        "teddy dog": 2,
    }


def test_captions_are_read_from_every_layout(tmp_path, make_shards):
    def texts(name, content=None):
        path = tmp_path / name
        if content is not None:
            path.write_text(content, encoding="utf-8")
        return [text.strip() for text in read_caption_texts(path, SkipReport())]

    assert texts("a.txt", "one\ntwo\n") == ["one", "two"]
    coco = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 1, "caption": "two"}],
    }
    assert texts("coco.json", json.dumps(coco)) == ["one", "two"]
    assert texts("cc3m.json", json.dumps({"images": [{"id": 1, "captions": ["one", "two"]}]})) == [
        "one",
        "two",
    ]
    assert texts(
        "m.jsonl",
        '{"file_name": "a.jpg", "text": "one"}\n{"file_name": "b.jpg", "captions": ["two"]}',
    ) == [
        "one",
        "two",
    ]
    make_shards([2, 1])
    assert texts("shards") == [f"caption 0 of {i:06d}" for i in range(3)]


def test_the_real_tagger_lists_sensible_nouns(tmp_path, capsys):
    pytest.importorskip("HanTa", reason='pip install "clim-data[nouns]"')
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS * 3))
    command = [
        "nouns",
        "--captions-json",
        str(tmp_path / "captions.txt"),
        "--out",
        str(tmp_path / "nouns.txt"),
    ]
    assert main([*command, "--min-count", "3"]) == 0
    listed = (tmp_path / "nouns.txt").read_text().splitlines()
    assert {
        "dog",
        "man",
        "woman",
        "wave",
        "surfboard",
        "bear",
        "couch",
        "bathroom",
        "sink",
        "leaf",
    } <= set(listed)
    assert {"toothbrush", "knife", "sign", "bench", "autumn"} <= set(listed)
    assert not {"dogs", "men", "leaves", "riding", "sitting", "two", "on", "red", "a"} & set(listed)
    record = json.loads((tmp_path / "nouns.txt.counts.json").read_bytes())
    assert (record["captions"], list(record["counts"]), record["counts"]["dog"]) == (18, listed, 6)
    assert "18 captions" in capsys.readouterr().out


def test_real_captions_give_their_objects(coco_cc, tmp_path):
    pytest.importorskip("HanTa", reason='pip install "clim-data[nouns]"')
    files = [coco_cc / "annotations" / f"captions_{split}2017.json" for split in ("train", "val")]
    report = write_nouns(files, tmp_path / "nouns.txt", rules=NounRules(min_count=3))
    assert report.captions == 165
    assert {
        "bathroom",
        "toilet",
        "sink",
        "sign",
        "woman",
        "boat",
        "train",
        "elephant",
        "dog",
    } <= set(report.counts)
    assert not {"white", "sitting", "two", "large", "dogs"} & set(report.counts)


@pytest.mark.parametrize(("captions", "least"), [(1, 1), (1999, 1), (5000, 5), (600_000, 10)])
def test_few_captions_need_a_noun_less_often(captions, least):
    assert NounRules().least_count(captions) == least
    assert NounRules(min_count=7).least_count(captions) == 7


def test_what_is_missing_is_named(tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match="min_count=0"):
        NounRules(min_count=0)
    with pytest.raises(ValueError, match="min_share=2"):
        NounRules(min_share=2)
    (tmp_path / "empty.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"empty\.json holds no captions"):
        write_nouns([tmp_path / "empty.json"], tmp_path / "nouns.txt", tagger=toy_tagger)
    (tmp_path / "some.txt").write_text("\n".join(CAPTIONS))
    with pytest.raises(ValueError, match="in 10 of 6 captions: lower --min-count"):
        write_nouns(
            [tmp_path / "some.txt"],
            tmp_path / "nouns.txt",
            rules=NounRules(min_count=10),
            tagger=toy_tagger,
        )
    assert not (tmp_path / "nouns.txt").exists()
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    with pytest.raises(ImportError, match="pip install HanTa"):
        hanta_tagger()
    assert (
        main(["nouns", "--captions-json", "none.json", "--out", str(tmp_path / "nouns.txt")]) == 2
    )
    assert "pip install HanTa" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_a_message(tmp_path, capsys):
    pytest.importorskip("HanTa")
    (tmp_path / "captions.txt").write_text("a dog\n")
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "nouns.txt")
    assert (
        main(
            [
                "nouns",
                "--captions-json",
                str(tmp_path / "captions.txt"),
                "--out",
                output,
                "--min-count",
                "1",
            ]
        )
        == 2
    )
    assert "check that path and its permissions" in capsys.readouterr().err


def test_a_long_caption_is_tagged_in_parts():
    pytest.importorskip("HanTa", reason='pip install "clim-data[nouns]"')
    found = hanta_tagger()(["dog"] * 2000)
    assert len(found) == 2000
    assert {(word, is_noun) for word, _, is_noun in found} == {("dog", True)}


def test_a_source_without_captions_says_what_was_skipped(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"file_name": "a.jpg", "text": {"caption": "a dog"}}\n')
    with pytest.raises(ValueError, match=r"no captions .*skipped 1, bad caption: .*an object"):
        write_nouns([tmp_path / "c.jsonl"], tmp_path / "n.txt", tagger=lambda words: [])
