import json
import shutil

import pytest
from clim_data import DATASETS, Dataset, DatasetCheck, diagnose
from clim_data.commands.main import main


@pytest.fixture
def tiny(tmp_path, images):
    """A registered data set of three images and a json, whole under tmp_path/root."""
    checks = (
        DatasetCheck("images", "pictures", "https://example.org/pictures.zip", 3),
        DatasetCheck("json", "notes.json", "https://example.org/notes.zip", 3, ("", "notes")),
    )
    tars = (DatasetCheck("tars", "tiny-shards", "https://example.org/shards"),)
    DATASETS["tiny"] = Dataset("tiny", "Tiny set", (checks, tars), ("clim-train tiny",))
    root = tmp_path / "root"
    (root / "coco" / "pictures").mkdir(parents=True)
    for i in range(3):
        (root / "coco" / "pictures" / f"{i}.jpg").write_bytes(
            images.encoded(images.pixels(i, 20, 20))
        )
    (root / "notes").mkdir()
    (root / "notes" / "notes.json").write_text(
        json.dumps({"images": [{"id": i} for i in range(3)]})
    )
    yield root
    del DATASETS["tiny"]


def test_a_whole_set_is_complete_and_says_what_it_enables(tiny, capsys):
    assert main(["doctor", str(tiny), "--need", "tiny", "--check-images", "--check-json"]) == 0
    out = capsys.readouterr().out
    assert "complete    tiny: Tiny set" in out
    assert "3 files" in out
    assert "enables  clim-train tiny" in out


@pytest.mark.parametrize(
    ("damage", "options", "detail"),
    [
        (lambda root: (root / "coco" / "pictures" / "1.jpg").unlink(), [], "2 of 3 files"),
        (
            lambda root: (root / "notes" / "notes.json").write_text('{"images": ['),
            [],
            "not a whole json file",
        ),
        (lambda root: (root / "notes" / "notes.json").write_text(""), [], "not a whole json file"),
        (
            lambda root: (root / "notes" / "notes.json").write_text('{"a": , }'),
            ["--check-json"],
            "not valid json",
        ),
        (
            lambda root: (root / "notes" / "notes.json").write_text('{"images": []}'),
            ["--check-json"],
            "0 of 3 images",
        ),
        (
            lambda root: (root / "coco" / "pictures" / "2.jpg").write_bytes(b"x"),
            ["--check-images"],
            "2.jpg: unreadable",
        ),
        (
            lambda root: (root / "notes" / "notes.json").unlink(),
            [],
            "from https://example.org/notes.zip",
        ),
    ],
)
def test_what_is_broken_or_missing_is_said_with_its_source(tiny, capsys, damage, options, detail):
    damage(tiny)
    assert main(["doctor", str(tiny), "--need", "tiny", *options]) == 1
    out = capsys.readouterr().out
    assert "incomplete  tiny" in out
    assert detail in out


def test_shards_are_an_alternative_and_cut_ones_are_named(tiny, tar, tmp_path):
    (tiny / "notes" / "notes.json").unlink()
    (tiny / "tiny-shards").mkdir()
    shard = tar(tiny / "tiny-shards" / "0.tar", [("a.txt", b"1")])
    (found,) = diagnose(tiny, ["tiny"])
    assert found.complete
    shard.write_bytes(shard.read_bytes()[:700])
    (found,) = diagnose(tiny, ["tiny"])
    assert not found.complete


def test_all_data_sets_are_listed_and_json_can_be_read(tmp_path, capsys):
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [dataset["name"] for dataset in found] == list(DATASETS)
    assert not any(dataset["complete"] for dataset in found)
    assert all(f["source"].startswith("http") for dataset in found for f in dataset["findings"])


def test_mistakes_are_told(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert "give the folder that holds your data sets" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path), "--need", "coco-caption"]) == 2
    assert "coco-captions" in capsys.readouterr().err


def test_official_layout_of_a_subset_is_found(coco_cc):
    (dataset,) = diagnose(coco_cc, ["coco-panoptic-val"], check_json=True)
    assert not dataset.complete
    assert [f.state for f in dataset.findings] == ["broken"] * 3
    assert "of 5,000 files" in dataset.findings[0].detail


def test_the_referring_sets_are_found_in_their_official_layout(golden, tmp_path):
    source = golden("demo/text_logic", "flmm").folder / "data"
    folder = tmp_path / "refcoco"
    folder.mkdir()
    shutil.copyfile(source / "refcoco" / "instances.json", folder / "instances.json")
    pickled = next((source / "refcoco").glob("refs(*).p")).read_bytes()
    (folder / "refs(unc).p").write_bytes(pickled)
    shutil.copytree(source / "images", tmp_path / "coco" / "train2014")
    (dataset,) = diagnose(tmp_path, ["refcoco"])
    assert [f.state for f in dataset.findings] == ["present", "present", "broken"]
    assert "of 82,783 files" in dataset.findings[2].detail
    (dataset,) = diagnose(tmp_path, ["refcoco"], check_json=True)
    assert "of 50,000 references" in dataset.findings[0].detail
    (folder / "refs(unc).p").write_bytes(pickled[:-9])
    assert "not a whole pickle" in diagnose(tmp_path, ["refcoco"])[0].findings[0].detail
    (folder / "refs(unc).p").write_bytes(b"cos\nsystem\n.")
    assert (
        "wants to import os.system"
        in diagnose(tmp_path, ["refcoco"], check_json=True)[0].findings[0].detail
    )


@pytest.mark.parametrize("annotations", ["Obj365_v1/annotations", "Obj365_v1"])
def test_targets_of_a_transfer_are_found_in_their_layouts(tmp_path, images, annotations):
    pictures = tmp_path / "Objects365" / "Obj365_v1" / "val"
    pictures.mkdir(parents=True)
    (pictures / "obj365_val_1.jpg").write_bytes(images.encoded(images.pixels(0, 20, 20)))
    (dataset,) = diagnose(tmp_path, ["objects365"])
    assert [f.state for f in dataset.findings] == ["present", "missing"]
    assert "objects365.org" in dataset.findings[1].source

    folder = tmp_path / "Objects365" / annotations
    folder.mkdir(exist_ok=True)
    (folder / "objects365_val.json").write_text(json.dumps({"images": [{"id": 1}]}))
    (dataset,) = diagnose(tmp_path, ["objects365"], check_json=True)
    assert dataset.complete
    assert dataset.recipes == ("clim-eval detection --transfer other",)


def test_narratives_are_a_list_and_count_as_such(tmp_path):
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "png_coco_val2017.json"
    path.write_text(json.dumps([{"image_id": "1", "segments": []}] * 3))
    found = diagnose(tmp_path, ["png-val"], check_json=True)[0].findings[-1]
    assert (found.state, found.detail) == ("present", "3 narratives")
    path.write_text("[1, 2}")
    assert diagnose(tmp_path, ["png-val"])[0].findings[-1].state == "broken"


def test_a_recipe_stands_for_the_data_sets_that_it_trains_on(tmp_path, capsys):
    found = diagnose(tmp_path, ["detic_lvis_clim", "lvis", "fvit_coco_evab16"])
    assert [dataset.name for dataset in found] == ["lvis", "cc3m", "coco-instances"]
    assert "clim-train detic_lvis_clim (with cc3m)" in found[0].recipes
    assert "clim-train fvit_coco_evab16" in found[2].recipes
    assert main(["doctor", str(tmp_path), "--need", "fvit_coco_vitb16"]) == 2
    assert "or a recipe of `clim-train list`" in capsys.readouterr().err
