"""`flmm train presence`: a presence head for trained heads, fitted on a user's own phrases."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from clim_data.command_line import CommandParser, add_option, at_least, typed

from flmm.commands.options import (
    add_model_options,
    heads_file,
    load_from_options,
    say,
    share,
)

if TYPE_CHECKING:
    import numpy as np

    from flmm.training.presence import ProbedPhrases
    from flmm.training.probe_files import ProbedImages

DESCRIPTION = """\
Fit the head that says whether a phrase is in the picture, and write heads with it next to the old
ones. Masks stay the same to the bit. It needs some dozens of images with phrases that are there,
whose masks are known, and phrases that are not.
"""


def build_parser() -> CommandParser:
    """Return the parser of `flmm train presence`."""
    parser = CommandParser(prog="flmm train presence", description=DESCRIPTION)
    add_model_options(parser)
    data = parser.add_argument_group("data")
    add_option(data, "--images", required=True)
    data.add_argument(
        "--phrases",
        type=Path,
        metavar="FILE",
        help='json lines: {"image": "a.jpg", "phrase": "a red car", "segmentation": COCO polygons '
        'or run lengths} for what is there, {"image": "a.jpg", "phrase": "a blue car", "present": '
        "false} for what is not",
    )
    add_option(data, "--refs", help="in place of --phrases: references of gRefCOCO, as json")
    add_option(data, "--instances-json", help="instances.json of the references")
    add_option(data, "--split", help="split of the references, such as train")
    data.add_argument("--limit", type=at_least(1), metavar="N", help="first N images alone")
    fit = parser.add_argument_group("fit")
    fit.add_argument(
        "--t-acc",
        type=share,
        metavar="S",
        help="fraction of the present phrases that must be called present, each scored by a head "
        'that did not see its image; all that score lower are "not in the picture"; default: 0.97',
    )
    fit.add_argument("--seed", type=at_least(0), default=0, help="default: 0")
    add_option(fit, "--out", short="-o", help="default: HEADS-presence.safetensors, next to HEADS")
    add_option(fit, "--overwrite")
    return parser


def run(arguments: Sequence[str]) -> None:
    """Fit a presence head, write the heads with it and print how well it does.

    Raises:
        FileNotFoundError, ValueError: mistakes in options or files.
    """
    options = build_parser().parse_args(list(arguments))
    heads = heads_file(options.checkpoint)
    out = options.out or heads.with_name(f"{heads.stem}-presence.safetensors")
    names = model_names(options, heads)
    _check_output(out, heads, names, overwrite=options.overwrite)
    images = open_probes(options)

    # Imported here: torch and transformers take seconds, which mistakes need not wait for.
    from flmm.training.presence import PresenceOptions, fit_presence, ground_probes

    chosen = {} if options.t_acc is None else {"t_acc": options.t_acc}
    settings = PresenceOptions(seed=options.seed, **chosen)
    model = load_from_options(options)
    say("grounding the phrases ...")
    try:
        probed = ground_probes(model, images)
    finally:
        if images.skipped.total:
            say(images.skipped.summary())
    head, scores = fit_presence(probed, settings)
    model.heads.use_presence(head)
    model.save_heads(out)
    _name_models(out, names)

    print(summary(probed, scores, head.threshold))
    print(f"heads with their presence head in {out}")
    print(f'next:\n  {typed("flmm")} ground IMAGE "a cat" --checkpoint {shlex.quote(str(out))}')


def open_probes(options: argparse.Namespace) -> "ProbedImages":
    """Return the images with their phrases.

    Raises:
        FileNotFoundError, ValueError: the options name no data, or both kinds, or a bad file.
    """
    from clim_data import ReferringExpressions
    from clim_data.readers import PROTOCOLS

    from flmm.training.probe_files import ProbedFile, ProbedSamples

    references = (options.refs, options.instances_json, options.split)
    chosen = {"seed": options.seed, "limit": options.limit}
    if options.phrases is not None and not any(references):
        return ProbedFile(options.images, options.phrases, **chosen)
    if options.phrases is None and all(references):
        data = ReferringExpressions(
            options.images,
            options.refs,
            options.instances_json,
            split=options.split,
            **PROTOCOLS["standard"],
        )
        return ProbedSamples(data, **chosen)
    raise ValueError(
        "which phrases? Pass --phrases FILE, or all of --refs, --instances-json and --split"
    )


def summary(probed: "ProbedPhrases", scores: "np.ndarray", threshold: float) -> str:
    """Say on how many phrases a head was fitted, and what such a head does on other images.

    Args:
        scores: see `fit_presence`.
    """
    import numpy as np
    from clim_eval.metrics import auroc, presence_accuracy

    from flmm.training.presence import PRESENT

    present = probed.kinds == PRESENT
    found = presence_accuracy(scores, present, threshold=threshold)
    figures = {"AUROC": auroc(scores[present], scores[~present]), **found}
    shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in figures.items())
    images = len(np.unique(probed.images))
    return (
        f"fitted on {len(present)} phrases ({present.sum()} of them present) of {images} images; "
        f"on images that were left out in turn: {shown}, with phrases below a score of "
        f"{threshold:.2f} not in the picture"
    )


def model_names(options: argparse.Namespace, heads: Path) -> dict[str, str]:
    """Return which LMM and SAM the heads are used with."""
    from flmm.heads.sources import trained_with

    return {part: getattr(options, part) or trained_with(heads, part) for part in ("lmm", "sam")}


def _check_output(out: Path, heads: Path, names: dict[str, str], *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before the minutes of work for it.

    Raises:
        ValueError: it has another ending, is in use, or its folder belongs to other models.
        OSError: its folder cannot be written.
    """
    from flmm.heads.facts import ABOUT_FILE, source_of

    if out.suffix != ".safetensors":
        raise ValueError(f"heads become a safetensors file: end -o {out} with .safetensors")
    if out.resolve() == heads.resolve():
        raise ValueError(f"-o {out} are the heads themselves: name another file")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} is there already: name another file with -o, or pass --overwrite")
    about = out.with_name(ABOUT_FILE)
    for part, name in names.items():
        other = source_of(about, part)
        if other is not None and other != name and Path(other).resolve() != Path(name).resolve():
            raise ValueError(
                f"{about} says that heads there belong to the {part.upper()} {other}, and these "
                f"belong to {name}: name another folder with -o"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out.parent):
        pass


def _name_models(out: Path, names: dict[str, str]) -> None:
    """Write next to new heads which LMM and SAM they belong to, if nothing there says so."""
    from clim_data.files import write_json

    from flmm.heads.facts import ABOUT_FILE, portable_source

    about = out.with_name(ABOUT_FILE)
    if not about.exists():
        folder = out.parent
        write_json(about, {part: portable_source(names[part], folder) for part in names}, indent=2)
