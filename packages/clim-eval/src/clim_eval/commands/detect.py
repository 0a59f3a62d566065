"""`clim-eval detect`: boxes, masks and names in your own pictures."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.command_line import Commands, add_command, add_option
from clim_data.files import write_json

from clim_eval.commands.options import (
    add_detector_options,
    add_template_option,
    add_vocabulary_option,
)
from clim_eval.commands.shared import (
    check_report_folder,
    open_chosen_detector,
    print_coverage,
    run_loading,
)
from clim_eval.evaluators.picture_files import PictureFiles, split_arguments
from clim_eval.reports.coverage import Coverage, check_scored

if TYPE_CHECKING:
    from clim_models.detection import TwoStageDetector

    from clim_eval.evaluators.detections import FoundObjects

# Names that a line on the terminal lists for a picture.
LISTED = 6


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "detect",
        run,
        "find objects of any names in images: pictures with boxes, and a COCO json",
        description="Find objects of any names in images. For every image there is a picture with "
        "boxes (and masks, if the detector has them) in the folder of --out, and detections.json "
        "has all boxes as COCO has them. Without names, the classes that the detector was trained "
        "with are used.",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="IMAGE_OR_NAME",
        help="image files or folders of images, then names of what to find, such as cat "
        "'red car'; a word that is the name of a file or folder here counts as images",
    )
    add_detector_options(parser)
    add_vocabulary_option(parser, ", in place of NAMEs")
    add_template_option(parser)
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="boxes of a lower score are dropped",
    )
    add_option(parser, "--batch-size", default=4)
    add_option(parser, "--workers", default=0)
    add_option(parser, "--out", default=Path("detections"), metavar="DIR", help="folder to write")


def run(options: Namespace) -> None:
    """Find objects in images."""
    from clim_eval.evaluators.detections import FoundObjects, coco_results, detect_pictures

    paths, names = split_arguments(options.words)
    if not 0 <= options.min_score <= 1:
        raise ValueError(f"--min-score {options.min_score}: pass a number from 0 to 1")
    if names and options.vocabulary:
        raise ValueError(f"{names[0]!r} next to --vocabulary: add the name to the file")
    files = PictureFiles.of(paths)
    check_report_folder(options.out)
    detector = _with_names(open_chosen_detector(options), names, options)

    images, annotations, faults = [], [], list(files.faults)
    category_ids = range(1, len(detector.names) + 1)
    for item in detect_pictures(
        detector, files, range(len(files)), run_loading(options), min_score=options.min_score
    ):
        if not isinstance(item, FoundObjects):
            faults.append(item)
            continue
        images.append(_image_record(item))
        annotations += coco_results(item, category_ids)
        _draw(item, detector.names, options.out)

    coverage = [
        Coverage("images", len(images), Coverage.of("", 0, faults).left_out, files.left_out)
    ]
    check_scored(coverage, "pass jpg, png or webp images that can be opened")
    categories = [
        {"id": number, "name": name}
        for number, name in zip(category_ids, detector.names, strict=True)
    ]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_json(options.out / "detections.json", content)
    print_coverage(coverage)
    print(f"{len(annotations)} boxes: {options.out / 'detections.json'}; pictures next to it")


def _with_names(
    detector: "TwoStageDetector", names: Sequence[str], options: Namespace
) -> "TwoStageDetector":
    """Return the detector with the classes of the command line."""
    from clim_eval.class_vectors import VocabularyFile
    from clim_eval.embeddings import TEMPLATES

    templates = TEMPLATES[options.templates]
    if options.vocabulary:
        file = VocabularyFile.read(options.vocabulary)
        return detector.with_vocabulary(
            file.vocabulary, templates=templates, read_example=file.read_example
        )
    return detector.with_vocabulary(names, templates=templates) if names else detector


def _image_record(item: "FoundObjects") -> dict[str, Any]:
    _, height, width = item.picture.pixels.shape
    return {
        "id": item.picture.image_id,
        "file_name": item.picture.name,
        "width": width,
        "height": height,
    }


def _draw(item: "FoundObjects", names: Sequence[str], folder: Path) -> None:
    """Write the picture, and print the names of its objects."""
    from tqdm import tqdm

    from clim_eval.pictures.detections import detection_figure
    from clim_eval.pictures.files import write_png

    found = item.found
    labels, scores = found.labels.tolist(), found.scores.tolist()
    figure = detection_figure(
        item.picture.pixels, found.boxes, labels, names, scores=scores, masks=found.masks
    )
    path = folder / PictureFiles.picture_name(item.picture.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, figure)

    shown = [
        f"{names[label]} {score:.2f}"
        for label, score in zip(labels[:LISTED], scores[:LISTED], strict=True)
    ]
    if len(labels) > LISTED:
        shown.append(f"and {len(labels) - LISTED} more")
    # Above the progress bar, not through it.
    tqdm.write(f"{item.picture.name}: {', '.join(shown) or 'nothing found'}")
