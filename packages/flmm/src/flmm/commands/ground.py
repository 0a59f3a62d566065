"""`flmm ground IMAGE "a red car" "the man on the left" --lmm ... --checkpoint ... -o out.png`."""

import time
from argparse import Namespace
from pathlib import Path

from clim_data import BrokenSample
from clim_data.command_line import Commands, add_command, add_option

from flmm.commands.example import FOLDER, add_example_option, use_example
from flmm.commands.ground_folder import (
    add_folder_options,
    chosen_phrases,
    ground_folder,
    refuse_folder_options,
)
from flmm.commands.grounders import (
    add_grounder_options,
    grounder_from_options,
    say_unanswered,
    say_what_is_unknown,
)
from flmm.commands.options import (
    add_model_options,
    add_score_option,
    say,
)


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands, "ground", run, "draw the masks of phrases in an image or a folder"
    )
    image = parser.add_argument(
        "image", metavar="IMAGE", help="a file, a URL, or a folder of images"
    )
    image.required = False  # --example can take its place
    phrases = parser.add_argument(
        "phrases", nargs="+", metavar="PHRASE", help='in quotes, such as "the man on the left"'
    )
    phrases.required = False  # --phrases can take their place
    add_model_options(parser)
    add_grounder_options(parser)
    add_score_option(parser)
    parser.add_argument(
        "--each-alone",
        action="store_true",
        help="let the LMM read each phrase by itself, at the cost of a pass for each; without it "
        "the phrases are read one after the other, and one can change the mask of the next",
    )
    add_option(
        parser,
        "--out",
        short="-o",
        help="png, jpg or webp to write, with the masks as json next to it; of a folder, the COCO "
        "json with all masks; default: IMAGE.grounded.png or FOLDER.grounded.json",
    )
    add_folder_options(parser)
    add_example_option(parser)


def run(options: Namespace) -> None:
    """Ground the phrases in a picture or in a folder of them, see `add`."""
    use_example(options)
    if options.example and options.out is None:
        options.out = Path(FOLDER) / "grounded.png"
    if Path(options.image).is_dir():
        ground_folder(options)
    else:
        refuse_folder_options(options)
        ground_picture(options)


def ground_picture(options: Namespace) -> None:
    """Draw the masks of one picture and write them."""
    from flmm.grounders.grounder import NOT_IN_PICTURE, absent_phrases
    from flmm.grounders.images import PhraseMarks, PictureError, save_grounding
    from flmm.pictures.files import grounding_path, name_of_picture, read_image

    # Everything is checked before loading, which can take minutes.
    image = read_image(options.image)
    name = name_of_picture(options.image)
    out = options.out or Path(f"{Path(name).stem}.grounded.png")
    grounding_path(out, source=options.image)

    chosen = chosen_phrases(options)
    phrases = chosen.of_picture(name)
    grounder = grounder_from_options(options)
    say_what_is_unknown(grounder, phrases)

    begin = time.monotonic()
    try:
        found = grounder(image, phrases)
    except BrokenSample as fault:  # such as an unusable shape
        raise BrokenSample(fault.reason, name, fault.detail) from None

    if chosen.classes is not None:
        found, phrases = chosen.classes.masks(found), list(chosen.classes.names)
    masks, scores = found.binary(options.min_score).cpu().numpy(), found.scores.tolist()

    record = out.with_suffix(".json")
    try:
        about = {
            "image": name,
            "orientation": "applied",  # masks lie on the upright picture
            "each_alone": options.each_alone,
            "min_score": options.min_score,
            "grounder": options.grounder,
            "score_kind": found.kind,
        }
        marks = PhraseMarks.of(found)
        save_grounding(out, image, masks, phrases, scores=scores, marks=marks, about=about)
    except PictureError as fault:
        say(str(fault))

    say(f"grounded in {time.monotonic() - begin:.1f} s")
    for phrase, mask, score in zip(phrases, masks, scores, strict=True):
        share = f"{100 * mask.mean():5.1f} % of the image" if mask.any() else "not found".rjust(20)
        print(f"{share}  score {score:.2f}  {phrase}")
    if absent := absent_phrases(phrases, found.in_picture()):
        print(f"{NOT_IN_PICTURE}: {', '.join(absent)}")
    say_unanswered(grounder)
    print(f"{out}\n{record}" if out.exists() else record)
