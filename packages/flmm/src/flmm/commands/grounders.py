"""Options of the grounders, and loading the one of the command line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data import SkipReport
from clim_data.processes import gather_objects

from flmm.adapters.frozen import FrozenLMM
from flmm.commands.options import (
    device_and_dtype,
    heads_file,
    load_from_options,
    loading,
    say,
    weight_options,
)
from flmm.grounders.grounder import AsksTheLMM, Grounder
from flmm.heads.sources import trained_with
from flmm.refiners.refiner import NO_REFINER

if TYPE_CHECKING:
    from flmm.grounders.chosen_heads import ChosenHeads
    from flmm.refiners.refiner import Refiner


def add_grounder_options(parser: argparse.ArgumentParser, *, several: str = "") -> None:
    """Add --attention-heads and --grounder, which takes one name or, with `several`, more.

    Args:
        several: what the command does with several grounders; "" where it takes one.
    """
    group = parser.add_argument_group("grounder")
    text = (
        "heads: trained heads read the LMM's attention; box: the LMM writes a box; attention: a "
        "few of its attention heads, without training; the last two need no --checkpoint"
    )
    if several:
        text += f"; {several}"
    group.add_argument(
        "--grounder",
        choices=tuple(GROUNDERS),
        nargs="+" if several else None,
        default=["heads"] if several else "heads",
        help=f"{text} (default: heads)",
    )
    group.add_argument(
        "--attention-heads",
        type=Path,
        metavar="JSON",
        help="for --grounder attention: heads in a file of flmm.grounders.ChosenHeads; default: "
        "chosen on drawn scenes, once for each LMM",
    )


def grounder_from_options(options: argparse.Namespace, lmm: FrozenLMM | None = None) -> Grounder:
    """Load the models of the options, and return the grounder.

    A command that has the option --each-alone says how the grounder reads phrases.

    Args:
        lmm: if it is loaded already.

    Raises:
        FileNotFoundError, ValueError: as `load_from_options`, or options that do not go together.
    """
    check_grounder(options, options.grounder)
    return GROUNDERS[options.grounder](options, lmm)


def options_of(options: argparse.Namespace, kind: str) -> argparse.Namespace:
    """Return the options of one of several grounders."""
    one = argparse.Namespace(**{**vars(options), "grounder": kind})
    if kind != "attention":
        one.attention_heads = None
    return one


def check_grounder(options: argparse.Namespace, kind: str) -> None:
    """Check the options of one grounder, before the minutes that loading can take.

    Raises:
        FileNotFoundError, ValueError: a model is not named, or options do not go together.
    """
    asked = [options.grounder] if isinstance(options.grounder, str) else options.grounder
    if options.attention_heads is not None and "attention" not in asked:
        raise ValueError(
            f"--attention-heads has no effect with --grounder {' '.join(asked)}: leave it out"
        )
    if kind == "heads" or options.checkpoint is not None:
        heads_file(options.checkpoint)
    elif options.lmm is None:
        raise ValueError(
            f"which LMM? Pass --lmm with a folder or a hub id; --grounder {kind} needs no heads"
        )
    if kind == "box" and _each_alone(options):
        raise ValueError(
            "--grounder box asks for each phrase by itself already: leave out --each-alone"
        )


def unanswered_notes(grounder: Grounder) -> list[str]:
    """Return how many phrases got no mask because the LMM's answer was of no use, with some
    examples: a sentence for a report, or nothing. Collective."""
    if not isinstance(grounder, AsksTheLMM):
        return []
    found = SkipReport()
    for faults in gather_objects(grounder.take_unanswered().faults):
        found.extend(faults)
    if not found.total:
        return []
    examples = "; ".join(str(fault) for fault in found.faults[:3])
    return [f"{found.total} phrases have no mask, such as {examples}."]


def say_unanswered(grounder: Grounder) -> None:
    """Tell the user which phrases got no mask because the LMM's answer was of no use; once."""
    if isinstance(grounder, AsksTheLMM):
        for fault in grounder.take_unanswered().faults:
            say(f"not found: {fault}")


def say_what_is_unknown(grounder: Grounder, phrases: Sequence[str]) -> None:
    """Warn of phrases without a noun that the heads know, where their file says what they know."""
    from flmm.grounders.heads import HeadsGrounder
    from flmm.heads.facts import unknown_phrases

    knows = grounder.knows if isinstance(grounder, HeadsGrounder) else None
    if knows is not None and (unknown := unknown_phrases(knows, phrases)):
        quoted = ", ".join(repr(phrase) for phrase in unknown)
        say(f"{quoted}: not among what these heads know ({', '.join(knows['nouns'])})")


def _heads_grounder(options: argparse.Namespace, lmm: FrozenLMM | None) -> Grounder:
    from flmm.grounders.heads import HeadsGrounder

    return HeadsGrounder(load_from_options(options, lmm), each_alone=_each_alone(options))


def _box_grounder(options: argparse.Namespace, lmm: FrozenLMM | None) -> Grounder:
    from flmm.adapters.boxes import box_format
    from flmm.grounders.box import BoxGrounder

    lmm, refiner = _untrained(options, lmm)
    if not box_format(lmm.family).trained:
        say(
            f"the makers of {lmm.config.model_type} document no format of boxes: it is asked all "
            "the same, and many answers may have none"
        )
    return BoxGrounder(lmm, refiner)


def _attention_grounder(options: argparse.Namespace, lmm: FrozenLMM | None) -> Grounder:
    from flmm.grounders.attention import AttentionGrounder

    lmm, refiner = _untrained(options, lmm)
    heads = _attention_heads(lmm, options.attention_heads)
    return AttentionGrounder(lmm, refiner, heads, each_alone=_each_alone(options))


# One line for each grounder; the first is the default.
GROUNDERS: dict[str, Callable[[argparse.Namespace, FrozenLMM | None], Grounder]] = {
    "heads": _heads_grounder,
    "box": _box_grounder,
    "attention": _attention_grounder,
}


def _each_alone(options: argparse.Namespace) -> bool:
    return getattr(options, "each_alone", False)


def _untrained(options: argparse.Namespace, lmm: FrozenLMM | None) -> "tuple[FrozenLMM, Refiner]":
    """Load the LMM, and the refiner as it was pretrained; without one named, masks stay coarse."""
    from flmm.adapters.registry import load_lmm
    from flmm.grounders.refining import box_refiner

    device, dtype = device_and_dtype(options)
    name, sam = options.lmm, options.sam
    if options.checkpoint is not None:
        heads = heads_file(options.checkpoint)
        name = name or trained_with(heads, "lmm")
        sam = sam or trained_with(heads, "sam")
    if sam is None:
        say("masks stay coarse; --refiner facebook/sam-vit-large, say, makes them fine")
        sam = NO_REFINER
    with loading(f"{name} ({dtype}, {device}), refiner {sam}"):
        refiner = box_refiner(sam, device=device)
        weights = weight_options(options)
        return lmm or load_lmm(name, dtype=dtype, device=device, **weights), refiner


def _attention_heads(lmm: FrozenLMM, file: Path | None) -> "ChosenHeads":
    """Read the chosen heads of an LMM; the first time, choose them and store the choice."""
    from flmm.grounders.chosen_heads import (
        SCENES_SOURCE,
        ChosenHeads,
        choose_on_drawn_scenes,
        heads_file_of,
    )

    path = file or heads_file_of(lmm)
    if file is None and not path.is_file():
        say(f"choosing attention heads on {SCENES_SOURCE}, once for this LMM ...")
        choose_on_drawn_scenes(lmm).save(path)
    heads = ChosenHeads.read(path)
    say(f"attention of {heads} ({path})")
    return heads
