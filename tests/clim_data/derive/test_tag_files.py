"""`clim-data tags`: captions of every kind of source become captions with tags."""

import json

import pytest
from clim_data.commands.main import main
from clim_data.derive.coco_synonyms import COCO_SYNONYMS
from clim_data.derive.tag_files import TagOptions, read_class_names, write_tags
from PIL import Image

CLASSES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "couch"}, {"id": 3, "name": "hot dog"}]


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": CLASSES}))
    return path


def tags_of(path):
    content = json.loads(path.read_text())
    assert content["categories"] == sorted(CLASSES, key=lambda one: one["id"])
    return {one["file_name"]: one["pos_category_ids"] for one in content["images"]}


def test_golden_synonyms_of_coco(golden):
    for category in golden("case08_tags", "detic").meta["data"]["coco"]["categories"]:
        name = category["name"]
        own = COCO_SYNONYMS.get(name, (name,))
        assert [one.replace("_", " ") for one in category["synonyms"]] == [
            one.replace("_", " ") for one in own
        ]


def test_golden_file_of_several_captions(golden, tmp_path):
    data = golden("case08_tags", "detic").meta["data"]
    several = data["several_captions"]
    (tmp_path / "classes.json").write_text(
        json.dumps({"categories": data[several["categories"]]["categories"]})
    )
    images = [
        {"id": i, "file_name": f"{i}.jpg", "captions": texts}
        for i, texts in enumerate(several["captions"])
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images}))
    for first, expected in ((False, several["allcaps"]), (True, several["first_only"])):
        report = write_tags(
            tmp_path / "captions.json",
            tmp_path / "out.json",
            classes=tmp_path / "classes.json",
            options=TagOptions(rule="original", first_caption=first, keep_untagged=True),
        )
        written = json.loads((tmp_path / "out.json").read_text())["images"]
        assert [image["pos_category_ids"] for image in written] == expected
        assert report.untagged == sum(not tags for tags in expected)


def test_coco_captions_and_the_command(classes, tmp_path, capsys):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 30, "height": 20} for i in range(4)]
    texts = {0: ["Two dogs.", "a sofa"], 1: ["a hot dog"], 2: ["a plain wall"], 3: [5]}
    annotations = [
        {"id": 10 * image + place, "image_id": image, "caption": text}
        for image, captions in texts.items()
        for place, text in enumerate(captions)
    ]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"images": images, "annotations": annotations}))
    out = tmp_path / "tags.json"
    command = ["tags", "--captions-json", str(captions), "--classes", str(classes)]
    assert main([*command, "--out", str(out)]) == 0
    assert tags_of(out) == {"0.jpg": [2, 7], "1.jpg": [3]}
    first = json.loads(out.read_text())["images"][0]
    assert (first["width"], first["height"], first["captions"]) == (30, 20, texts[0])
    printed = capsys.readouterr().out
    assert "2 images, 3 tags of 3 of 3 classes" in printed
    assert "1 images without a tag" in printed
    assert "bad caption" in printed

    assert main([*command, "--out", str(out), "--keep-untagged", "--first-caption"]) == 0
    assert tags_of(out) == {"0.jpg": [7], "1.jpg": [3], "2.jpg": []}
    assert main(["tags", "--classes", str(classes), "--out", str(out)]) == 2
    assert "which captions?" in capsys.readouterr().err


def test_tables_rows_and_folders(classes, tmp_path):
    # U+0085 ends a line for str.splitlines; the file numbers its lines without it.
    lines = "a dog\u0085here\thttp://x/y.jpg\n\na hot dog\thttp://x/z.jpg\n"
    (tmp_path / "cc3m.tsv").write_text(lines, encoding="utf-8")
    out = tmp_path / "out.json"
    with pytest.raises(ValueError, match="--file-names"):
        write_tags(tmp_path / "cc3m.tsv", out, classes=classes)
    assert not out.exists()
    options = TagOptions(file_names="{:05d}.jpg")
    write_tags(tmp_path / "cc3m.tsv", out, classes=classes, options=options)
    assert tags_of(out) == {"00000.jpg": [7], "00002.jpg": [3]}

    (tmp_path / "own.tsv").write_text("a couch\tdir/a.jpg\nno file\n")
    report = write_tags(tmp_path / "own.tsv", out, classes=classes)
    assert tags_of(out) == {"dir/a.jpg": [2]}
    assert report.skipped.counts == {"bad row": 1}

    (tmp_path / "rows.jsonl").write_text('{"file_name": "b.jpg", "text": "dog"}\n')
    write_tags(tmp_path / "rows.jsonl", out, classes=classes)
    assert tags_of(out) == {"b.jpg": [7]}
    with pytest.raises(ValueError, match="names its images itself"):
        write_tags(tmp_path / "rows.jsonl", out, classes=classes, options=options)

    folder = tmp_path / "photos"
    folder.mkdir()
    for name, text in (("c", "a sofa and dogs"), ("d", "")):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text)
    report = write_tags(folder, out, classes=classes)
    assert tags_of(out) == {"c.png": [2, 7]}
    assert report.skipped.total == 1


def test_names_of_classes_and_what_is_refused(classes, tmp_path):
    captions = tmp_path / "rows.jsonl"
    captions.write_text('{"file_name": "b.jpg", "text": "a hound"}\n')
    with pytest.raises(ValueError, match=r"no caption of .* names a class"):
        write_tags(captions, tmp_path / "out.json", classes=classes)
    assert not (tmp_path / "out.json").exists()

    synonyms = tmp_path / "synonyms.json"
    synonyms.write_text('{"dog": ["hound"]}')
    write_tags(captions, tmp_path / "out.json", classes=classes, synonyms=synonyms)
    assert tags_of(tmp_path / "out.json") == {"b.jpg": [7]}
    original = read_class_names(classes, rule="original")[1]
    assert original == [["sofa", "couch", "lounge"], ["sausage"], ["dog"]]
    assert read_class_names(classes)[1][1] == ["sausage", "hot dog"]
    marked = tmp_path / "marked.json"
    marked.write_text(json.dumps({"categories": [{"id": 1, "name": "\ufeffdog"}]}))
    assert read_class_names(marked) == ([{"id": 1, "name": "dog"}], [["dog", "dog"]])

    for text, message in (
        ('{"wolf": ["wolf"]}', "no categories"),
        ('{"dog": "hound"}', "object of lists"),
        ("[", "no json"),
    ):
        synonyms.write_text(text)
        with pytest.raises(ValueError, match=message):
            write_tags(captions, tmp_path / "out.json", classes=classes, synonyms=synonyms)
    with pytest.raises(ValueError, match="give another output"):
        write_tags(captions, classes, classes=classes)
    with pytest.raises(ValueError, match="names no line"):
        TagOptions(file_names="a.jpg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"dog": ["dog"], "dog": ["puppy"]}', "'dog' is there twice"),
        ('{"dog": ["dog"], " dog": ["puppy"]}', "' dog' twice"),
        ('{"dog": "puppy"}', "'dog' has puppy"),
        ('{"dog": []}', "'dog' has"),
        ('{"dog": ["puppy"', "no json"),
        ('[["dog", "puppy"]]', "must be an object of lists"),
        ('{"cat": ["cat"]}', "are no categories"),
    ],
)
def test_damaged_synonyms_are_refused(classes, tmp_path, text, message):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(classes, tmp_path / "names.json")


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 1, "name": "dog", "synonyms": [3]}, "synonyms of 'dog' are"),
        ({"id": 1, "name": "dog", "synonyms": "puppy"}, "synonyms of 'dog' are puppy"),
        ({"id": 1, "name": "(thing)"}, "has no name with a word"),
    ],
)
def test_categories_without_usable_names_are_refused(tmp_path, category, message):
    (tmp_path / "c.json").write_text(json.dumps({"categories": [category]}))
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / "c.json")


def test_lines_of_one_file_are_captions_of_one_image(classes, tmp_path):
    (tmp_path / "c.tsv").write_text(
        "a dog\ta.jpg\nold\tb.jpg\nits couch\t./a.jpg\na dog\t../c.jpg\n"
    )
    write_tags(tmp_path / "c.tsv", tmp_path / "out.json", classes=classes)
    assert tags_of(tmp_path / "out.json") == {"a.jpg": [2, 7]}
