"""Options mean the same in every command: they are of the vocabulary, or one command's own."""

import argparse

import pytest
from clim_data.command_line import VOCABULARY, CommandParser, add_option
from clim_data.commands import main as data
from clim_eval.commands import main as evaluation
from clim_train.commands import estimate
from flmm.commands import main as grounding, presence
from flmm.commands.train import estimate_parser

# Option -> the commands that need it, and what for.
OWN = {
    "--samples-per-shard": "pack: size of the shards",
    "--name": "pack: names of the shards",
    "--check-images": "pack, doctor: decode every image",
    "--text": "pack refcoco: which spelling of a sentence",
    "--bad-masks": "pack refcoco: objects without a polygon",
    "--need": "doctor: parts that decide the exit status",
    "--check-json": "doctor: parse every annotation file",
    "--json": "doctor: for programs that read the findings",
    "--from": "proposals: results of a detector in place of a search",
    "--top": "proposals: choice of boxes",
    "--min-score": "proposals, pseudo-label, detect: choice of boxes",
    "--nms": "proposals: choice of boxes",
    "--min-px": "proposals: choice of boxes",
    "--method": "proposals: how boxes are found",
    "--search-px": "proposals: selective search",
    "--quality": "proposals: selective search",
    "--detector": "proposals: RPN",
    "--weights": "proposals: RPN",
    "--min-count": "nouns: which are listed",
    "--min-share": "nouns: which are listed",
    "--compounds": "nouns: pairs of nouns",
    "--classes": "tags: json of the categories",
    "--synonyms": "tags: names of the classes",
    "--rule": "tags: how captions are compared with names",
    "--first-caption": "tags: which captions count",
    "--keep-untagged": "tags: which images are written",
    "--file-names": "tags: images of a table of addresses",
    "--train": "ov-split: official file of the training images",
    "--val": "ov-split: official file of the validation images",
    "--keep-empty": "ov-split: images without a box",
    "--allow-partial": "ov-split: a subset of an official file",
    "--image-px": "all commands of clim-eval with a model",
    "--outputs": "regions, alpha: which features",
    "--readouts": "readouts: which are compared",
    "--crops": "regions, alpha: the slow reference",
    "--protocol": "regions, alpha, detection, eval refcoco: rules of the figures",
    "--class-embeddings": "all commands that embed the classes of their data: vectors on disk",
    "--annotations": "detection, rescore: json of images, categories and boxes",
    "--detections": "detection, rescore: results of any detector",
    "--transfer": "detection: scores of an F-ViT on another data set",
    "--base": "detection: classes whose AP is averaged apart",
    "--novel": "detection: classes whose AP is averaged apart",
    "--iou-types": "detection: boxes or masks",
    "--weight": "rescore: of the probability",
    "--iou-weight": "rescore: of the predicted IoU",
    "--iou-field": "rescore: where the predicted IoU stands",
    "--templates": "all commands that embed names",
    "--cache": "all commands that embed names",
    "--no-cache": "all commands that embed names",
    "--alphas": "alpha: the interpolations",
    "--student": "alpha: a checkpoint in place of a run",
    "--teacher": "alpha: a checkpoint in place of a run",
    "--retrieval-images": "alpha: a second data set",
    "--class-images": "alpha: a third data set",
    "--keep-gb": "alpha: memory of decoded images",
    "--categories-json": "embed: classes of an annotation file",
    "--nouns": "pseudo-label: what boxes may be called",
    "--no-captions": "pseudo-label: choose among all nouns",
    "--proposals": "label: find boxes first",
    "--min-box-px": "pseudo-label: choice of boxes",
    "--max-box-px": "pseudo-label: choice of boxes",
    "--features": "pseudo-label, rescore: crops or the dense map",
    "--context": "pseudo-label, rescore: size of a crop",
    "--max-boxes": "pseudo-label: choice of boxes",
    "--title": "report: heading",
    "--draw": "show: what marks the region around the peak",
    "--compare": "show: two models in one picture",
    "--example": "show: the shipped model about the shipped scene",
    "--readout": "show: path of the last block",
    "--grounder": "flmm: who makes the masks",
    "--attention-heads": "flmm: heads of one grounder",
    "--checkpoint": "detect: trained detector; flmm: trained heads",
    "--vocabulary": "all commands that embed names: phrases and examples of each",
    "--lmm": "flmm: the frozen LMM",
    "--sam": "flmm: the refiner",
    "--refiner": "flmm: the refiner",
    "--heads": "flmm attention: how many are drawn",
    "--queries": "flmm eval reasonseg: which questions",
    "--grounded": "flmm eval reasonseg: question or answer",
    "--entities": "flmm eval flickr30k: captions and boxes",
    "--adapter": "flmm: a LoRA of the LMM",
    "--load-4bit": "flmm: weights of the LMM",
    "--each-alone": "flmm: phrases read each by itself",
    "--phrases": "flmm ground, train presence: file of phrases",
    "--t-acc": "flmm train presence: choice of the threshold",
    "--seed": "flmm train presence: which images are held out",
    "--question": "chat: ask without a prompt",
    "--max-new-tokens": "chat, demo: longest answer",
    "--examples": "demo: pictures to offer",
    "--host": "demo: address of the page",
    "--port": "demo: address of the page",
    "--pictures": "eval: pictures of samples in the report; ground, label: folder of pictures",
    "--limit": "eval, train presence: the first samples only",
    "--scenes": "demo-model: test scenes next to the model",
    "--questions": "eval viscot: files of the benchmark",
    "--focus": "eval viscot: where the model looks again",
    "--no-sam": "eval viscot: boxes of the coarse masks",
    "--judge": "eval viscot: what scores the answers",
    "--judge-model": "eval viscot: name of a model at the judge's address",
    "--no-history": "chat: each question stands for itself",
    "--gpus": "estimate",
    "--steps": "flmm train estimate: steps that are measured",
    "--gpu": "estimate",
    "--share": "estimate",
    "--tflops": "estimate",
    "--preset": "estimate: as of the recipe",
}
EVERYWHERE = {"--help", "--version"}


def leaves(parser):
    """The parsers of a program's commands, without those that only list commands."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for command in group.choices.values():
            yield from leaves(command)


def parsers():
    for program in (data, evaluation):
        for name in program.COMMANDS:
            yield from leaves(program.build_parser([name]))
    for name in grounding.COMMANDS:
        yield from leaves(grounding.build_parser(name))
    yield estimate.build_parser()
    yield estimate_parser()
    yield presence.build_parser()


def test_the_help_of_a_program_is_that_of_its_commands():
    """Without a command their modules are not imported, and a table says what each does."""
    for program in (data, evaluation):
        short = program.build_parser([]).format_help()
        for name in program.COMMANDS:
            assert program.build_parser([name]).format_help() == short
    for name in grounding.COMMANDS:
        assert grounding.build_parser(name).format_help() == grounding.build_parser().format_help()


def options_of(parser):
    for action in parser._actions:
        for flag in action.option_strings:
            if flag.startswith("--"):
                yield flag, action


def test_every_option_is_in_the_vocabulary_or_a_commands_own():
    used = {flag for parser in parsers() for flag, _ in options_of(parser)}
    assert used - set(VOCABULARY) - set(OWN) - EVERYWHERE == set()
    assert set(OWN) - used == set()
    assert set(OWN) & set(VOCABULARY) == set()


def test_an_option_of_the_vocabulary_has_one_kind_of_value():
    for parser in parsers():
        for flag, action in options_of(parser):
            if flag not in VOCABULARY:
                continue
            word = VOCABULARY[flag]
            assert (action.nargs == 0) == (word.kind is None), (parser.prog, flag)
            assert action.choices == word.choices, (parser.prog, flag)


def test_every_option_has_a_help_text():
    for parser in parsers():
        for flag, action in options_of(parser):
            assert action.help, (parser.prog, flag)


def test_old_spellings_lead_to_options_of_the_same_parser_and_are_hidden():
    for parser in parsers():
        flags = {flag for flag, _ in options_of(parser)}
        for old, new in getattr(parser, "old_spellings", {}).items():
            assert new in flags, parser.prog
            assert old not in flags, parser.prog
            assert f"{old} " not in parser.format_help(), parser.prog


@pytest.mark.parametrize(
    ("program", "words", "name", "value"),
    [
        (data, "pack coco-captions --images a --annotations b --output c", "out", "c"),
        (data, "pack lvis --images a --annotations=b --output=c", "instances_json", "b"),
        (data, "pack coco-panoptic --images a --annotations b --panoptic p --output c", "kind", ""),
        (data, "nouns --captions a b --output c", "captions_json", "a b"),
        (data, "proposals --images a --annotations b --output c", "images_json", "b"),
        (evaluation, "alpha run --zeroshot-images a --zeroshot-names b", "class_images", "a"),
        (evaluation, "alpha run --caption-images a", "retrieval_images", "a"),
        (grounding, "eval png --shards a --out o", "images", "a"),
        (grounding, "eval refcoco --images a --instances b --out o", "instances_json", "b"),
        (grounding, "eval png --images a --narratives b --out o", "narratives_json", "b"),
        (grounding, "ground a.jpg cat --dtype bfloat16", "precision", "bf16"),
        (grounding, "attention a.jpg cat --lmm l --dtype=float32", "precision", "fp32"),
    ],
)
def test_old_spellings_are_taken_and_name_the_new_ones(program, words, name, value, capsys):
    first = words.split()[0]
    parser = program.build_parser(first if program is grounding else [first])

    found = getattr(parser.parse_args(words.split()), name)

    if value:
        shown = " ".join(map(str, found)) if isinstance(found, list) else str(found)
        assert shown == value
    said = capsys.readouterr().err.splitlines()
    assert said
    assert all(" is now --" in line and "the next release drops" in line for line in said)


def test_words_that_are_no_options_stay(capsys):
    parser = CommandParser(prog="toy")
    add_option(parser, "--out", old=["--output"])
    parser.add_argument("texts", nargs="*")

    options = parser.parse_args(["--out", "a", "--", "--output", "b"])

    assert options.texts == ["--output", "b"]
    assert capsys.readouterr().err == ""


def test_an_option_outside_the_vocabulary_is_refused():
    with pytest.raises(KeyError):
        add_option(CommandParser(), "--outfile")
