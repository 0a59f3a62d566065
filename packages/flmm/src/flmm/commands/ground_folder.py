"""`flmm ground FOLDER --phrases FILE`: the phrases of many images, in one COCO json."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data.command_line import CommandParser, add_option, given, refuse_inside
from clim_data.files import check_output_folder
from clim_data.processes import Ranks

from flmm.commands.evaluation_options import on_own_gpu, what_counts
from flmm.commands.grounders import (
    check_grounder,
    grounder_from_options,
    say_unanswered,
    say_what_is_unknown,
)
from flmm.commands.options import say

if TYPE_CHECKING:
    from flmm.grounders.phrase_files import PhraseList

# Options that have no effect on a single picture.
_OF_FOLDERS = ("pictures", "batch_size", "workers", "patience", "overwrite")
# Options that name what the output's `info` describes by its content, or that change no mask.
_NOT_IN_INFO = (
    "image",
    "phrases",
    "phrases_file",
    "vocabulary",
    "each_alone",
    "min_score",
    *_OF_FOLDERS,
)


def add_folder_options(parser: CommandParser) -> None:
    """Add --phrases and the options that need a folder."""
    group = parser.add_argument_group("many images")
    group.add_argument(
        "--phrases",
        dest="phrases_file",
        type=Path,
        metavar="FILE",
        help="phrases, one a line, or json: a list, or {image name: [phrase, ...]}; in place of "
        "PHRASEs",
    )
    group.add_argument(
        "--vocabulary",
        type=Path,
        metavar="JSON",
        help="classes with phrases and what they are not, in place of PHRASEs: a class has the "
        "mask of its best phrase, and none where a phrase under `not` fits the same thing better",
    )
    group.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="also draw each image with its masks into this folder",
    )
    add_option(
        group, "--batch-size", help="images per pass of the LMM; default: 8 on a GPU, 1 on a CPU"
    )
    add_option(group, "--workers", help="processes that load images; default: 2")
    add_option(group, "--patience")
    add_option(group, "--overwrite")


def refuse_folder_options(options: Namespace) -> None:
    """Raise ValueError for an option of folders that was given with one picture."""
    for name in _OF_FOLDERS:
        if getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} needs a folder of images, not one picture: leave it out")


def chosen_phrases(options: Namespace) -> "PhraseList":
    """Return the phrases of the command line, of the file or of the vocabulary.

    Raises:
        ValueError: there are none, or more than one of them is given.
        FileNotFoundError: there is no such file.
    """
    from flmm.grounders.phrase_files import PhraseList

    if sum(map(bool, (options.phrases, options.phrases_file, options.vocabulary))) != 1:
        raise ValueError(
            'what is looked for? Pass phrases, such as "a red car", or --phrases FILE, or '
            "--vocabulary JSON, and only one of them"
        )
    if options.vocabulary:
        return PhraseList.of_vocabulary(options.vocabulary)
    if options.phrases_file:
        return PhraseList.read(options.phrases_file)
    return PhraseList.of(options.phrases)


def ground_folder(options: Namespace) -> None:
    """Ground the phrases of every image of a folder, or go on where it stopped."""
    from flmm.grounders.asked import PhraseImages
    from flmm.grounders.folder import FolderJob, FolderOptions, FolderReport
    from flmm.grounders.heads import images_per_pass

    folder = Path(options.image)
    output = options.out or Path(f"{folder.resolve().name}.grounded.json")
    if output.suffix.lower() != ".json":
        raise ValueError(f"the masks of a folder become one json: end -o {output} with .json")
    if options.pictures is not None:
        check_output_folder(options.pictures, "--pictures")
        refuse_inside(options.pictures, folder, "--pictures")
    options = on_own_gpu(options)
    ranks = Ranks.of_launcher()
    settings = FolderOptions(
        batch_size=options.batch_size or images_per_pass(options.device or "cpu"),
        each_alone=options.each_alone,
        min_score=options.min_score,
        pictures=options.pictures,
        overwrite=options.overwrite,
        ranks=ranks,
        **given(options, "workers", "patience"),
    )

    # Everything is checked before loading, which can take minutes.
    check_grounder(options, options.grounder)
    images = PhraseImages(folder, chosen_phrases(options))
    info = {name: value for name, value in what_counts(options).items() if name not in _NOT_IN_INFO}
    job = FolderJob(images, output, info, settings)
    if job.finished():
        report = FolderReport(output, finished=True)
    else:
        grounder = grounder_from_options(options)
        say_what_is_unknown(grounder, images.categories)
        report = job.run(grounder)
        say_unanswered(grounder)
    if ranks.is_first:
        if settings.pictures is not None:
            say(f"pictures: {settings.pictures}")
        print("\n".join(report.lines()))
