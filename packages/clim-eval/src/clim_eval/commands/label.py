"""`clim-eval label`: a folder of pictures and names in, one COCO json out."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option, refuse_inside
from clim_data.files import check_output_folder

from clim_eval.commands.options import (
    TRAINING_PX,
    add_class_options,
    add_model_options,
    add_vocabulary_option,
    options_of_job,
)
from clim_eval.commands.pseudo_label import add_choice_options, add_work_options


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "label",
        run,
        "name the boxes of a folder of images: one COCO json",
        description="Name boxes of all images of a folder and write one COCO json. The same "
        "command continues a killed run; ranks of a launcher share the images. Boxes stay in the "
        "frame of their file; pictures are drawn in it, too.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of images, or shards")
    parser.add_argument("names", nargs="*", metavar="NAME", help="classes, such as cat 'red car'")
    add_vocabulary_option(parser, ", in place of NAMEs")
    boxes = parser.add_mutually_exclusive_group(required=True)
    add_option(boxes, "--boxes", help="COCO json of proposals; their categories do not count")
    boxes.add_argument(
        "--proposals",
        action="store_true",
        help="find boxes by selective search first; they go to NAME.proposals.json next to --out "
        "(`clim-data proposals` has other ways)",
    )
    add_option(
        parser, "--out", default=Path("labels.json"), metavar="JSON", help="COCO json to write"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="folder for pictures with the named boxes"
    )
    add_model_options(parser, f"{TRAINING_PX} (for features of whole images)")
    add_choice_options(parser)
    add_class_options(parser)
    add_work_options(parser)


def run(options: Namespace) -> None:
    """Name the boxes of all images of a folder."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_eval.labelling.folder import draw_labels, find_boxes
    from clim_eval.labelling.options import PseudoLabelOptions
    from clim_eval.labelling.run import pseudo_label

    if bool(options.names) == bool(options.vocabulary):
        raise ValueError(
            "pass names to give, such as cat 'red car', or --vocabulary JSON, and not both"
        )
    if not Path(options.folder).exists() and "://" not in options.folder:
        raise FileNotFoundError(f"FOLDER {options.folder} is not there: check the path")
    if options.pictures is not None:
        if not Path(options.folder).is_dir():
            raise ValueError(f"--pictures needs a folder of images, and {options.folder} is none")
        check_output_folder(options.pictures, "--pictures")
        refuse_inside(options.pictures, options.folder, "--pictures")

    # Checked here, before the search for boxes, which takes the longest.
    job = options_of_job(
        PseudoLabelOptions,
        options,
        images=(options.folder,),
        names=tuple(options.names),
        no_captions=True,
    )
    if options.proposals:
        job = replace(job, boxes=find_boxes(options.folder, job))
    pseudo_label(job)
    if options.pictures is not None:
        draw_labels(options.out, options.folder, options.pictures)
