"""Options of the commands that ground (LMM, SAM and heads), and loading them with messages."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clim_data.command_line import CommandParser, add_option, at_least
from clim_data.processes import Ranks

from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.precision import DTYPES, dtype_for
from flmm.grounded import GroundedLMM
from flmm.heads.sources import heads_in, trained_with

# --dtype, the old spelling of --precision, took torch's names.
_OLD_NAMES = {dtype: precision for precision, dtype in DTYPES.items()}


def add_model_options(parser: CommandParser) -> None:
    """Add the options of the heads, the LMM, the refiner and the device."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=Path,
        help="trained heads: folder of a training, heads.safetensors or a released .pth",
    )
    group.add_argument(
        "--lmm",
        metavar="PATH_OR_HUB_ID",
        help="such as llava-hf/llava-1.5-7b-hf; default: the LMM that the heads were trained with",
    )
    group.add_argument(
        "--refiner",
        "--sam",
        dest="sam",
        metavar="PATH_OR_HUB_ID",
        help="SAM, such as facebook/sam-vit-large, or `none` for coarse masks without one; "
        "default: what the heads were trained with",
    )
    add_weight_options(parser, group)


def add_weight_options(
    parser: CommandParser, group: "argparse._ArgumentGroup | None" = None
) -> None:
    """Add --precision, --adapter, --load-4bit and --device: how the LMM's weights are loaded.

    Args:
        group: of the parser, where the help shows them.
    """
    group = group or parser.add_argument_group("model")
    add_option(
        group,
        "--precision",
        type=lambda text: _OLD_NAMES.get(text, text),
        help="numbers of the LMM's weights; default: bf16 on a GPU, fp32 on the CPU",
    )
    parser.add_old_spelling("--dtype", "--precision")
    group.add_argument(
        "--adapter",
        metavar="PATH_OR_HUB_ID",
        help="a LoRA of the LMM, which is added to its weights; needs peft",
    )
    group.add_argument(
        "--load-4bit",
        action="store_true",
        default=None,
        help="the LMM's linear layers in 4 bits, on a GPU; needs bitsandbytes",
    )
    add_option(group, "--device")


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Add --max-new-tokens and --no-history."""
    parser.add_argument(
        "--max-new-tokens",
        type=at_least(1),
        metavar="N",
        help="longest answer; default: 512, or what fits",
    )
    parser.add_argument(
        "--no-history",
        action="store_true",
        help="let each question stand for itself; without it the LMM is told the earlier questions "
        "and its answers, as far as they fit",
    )


def add_score_option(parser: argparse.ArgumentParser) -> None:
    """Add --min-score."""
    parser.add_argument(
        "--min-score",
        type=share,
        default=0.0,
        metavar="S",
        help="call phrases with a lower score, 0 to 1, not found; default: 0, all get a mask",
    )


def share(text: str) -> float:
    """Read a number from 0 to 1, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return value


def say_how_phrases_are_found() -> None:
    """Tell the user that simple rules find the phrases, if spaCy is missing."""
    from flmm.text.phrases import has_spacy

    if not has_spacy():
        say(
            "phrases are found by simple rules; for better ones: pip install spacy and "
            "en_core_web_sm"
        )


def load_from_options(options: argparse.Namespace, lmm: FrozenLMM | None = None) -> GroundedLMM:
    """Load the model of the options, with a line on stderr about each part and its time.

    Args:
        lmm: if it is loaded already.

    Raises:
        FileNotFoundError, ValueError: as `load_grounded`, or no LMM or SAM is named anywhere.
    """
    from flmm.adapters.registry import load_lmm
    from flmm.grounded import load_grounded

    device, dtype = device_and_dtype(options)
    heads = heads_file(options.checkpoint)
    name, sam = (getattr(options, part) or trained_with(heads, part) for part in ("lmm", "sam"))
    with loading(f"{name} ({dtype}, {device}), {sam} and {heads}"):
        weights = weight_options(options)
        if lmm is None and weights:
            lmm = load_lmm(name, dtype=dtype, device=device, **weights)
        model = load_grounded(lmm or name, sam=sam, heads=heads, dtype=dtype, device=device)
    if model.heads.knows is not None:
        say(f"these heads know {model.heads.knows['what']}")
    if model.heads.score_kind == "geometric":
        say(
            "these heads have no presence head: scores say how well the stages of a mask agree, "
            "not whether the phrase is there"
        )
    return model


def weight_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `load_lmm` for the weights of the LMM: --load-4bit and --adapter."""
    weights: dict[str, Any] = {}
    if options.load_4bit:
        weights["four_bit"] = True
    if options.adapter is not None:
        weights["adapter"] = options.adapter
    return weights


def device_and_dtype(options: argparse.Namespace) -> tuple[str, str]:
    """Return the device and the dtype of the LMM."""
    import torch

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return device, dtype_for(options.precision, device)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Print the part that is being loaded, and the time it took."""
    begin = time.monotonic()
    say(f"loading {what} ...")
    yield
    say(f"loaded in {time.monotonic() - begin:.0f} s")


def heads_file(checkpoint: Path | None) -> Path:
    """Return the file of heads: itself, or in the folder of a training (RUN or RUN/model).

    Raises FileNotFoundError where there is none, ValueError where none was named.
    """
    if checkpoint is None:
        raise ValueError(
            "masks need trained heads: pass --checkpoint with the folder of a training (`hatch run "
            "flmm-quickstart` makes flmm-quickstart/run in minutes, offline), or with a released "
            "F-LMM .pth next to --lmm and --sam; or find them without, by --grounder attention"
        )
    return heads_in(checkpoint)


def say(text: str) -> None:
    """Print a message to the person at the terminal, on stderr. Of several processes, the first
    prints it."""
    if Ranks.of_launcher().is_first:
        print(text, file=sys.stderr, flush=True)
