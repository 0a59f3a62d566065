"""`flmm demo --checkpoint RUN [--port 7860]`: the web page."""

import socket
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.command_line import Commands, add_command
from clim_data.files import IMAGE_SUFFIXES, is_image

from flmm.adapters.frozen import FrozenLMM
from flmm.commands.example import add_example_option, use_example
from flmm.commands.grounders import (
    add_grounder_options,
    check_grounder,
    grounder_from_options,
    options_of,
)
from flmm.commands.options import (
    add_answer_options,
    add_model_options,
    add_score_option,
    heads_file,
    say,
    say_how_phrases_are_found,
)

if TYPE_CHECKING:
    from flmm.web.makers import MaskMakers

PORT = 7860
HOST = "127.0.0.1"
NEEDED = ("starlette", "uvicorn")
EXAMPLES_SHOWN = 12
MOST_CONNECTIONS = 256


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands,
        "demo",
        run,
        "open a web page: ask about a picture, ground phrases in it, let the model look again",
    )
    parser.epilog = (
        "Only this machine can reach the page. --host 0.0.0.0 opens it to everybody who can reach "
        f"the machine, without a password; from one other machine use `ssh -L {PORT}:{HOST}:{PORT} "
        "HERE` instead."
    )
    add_model_options(parser)
    add_grounder_options(parser, several="the page offers all of them")
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="FOLDER",
        help="pictures to offer, the first twelve by name",
    )
    add_score_option(parser)
    add_answer_options(parser)
    add_example_option(parser)
    parser.add_argument("--host", default=HOST, help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=PORT, help="port to listen on; 0 takes a free one"
    )


def run(options: Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises ValueError or FileNotFoundError for mistakes of the user.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(
            f"the web page needs {' and '.join(missing)}: pip install starlette uvicorn"
        )
    from flmm.web.network import allowed_hosts, open_sockets

    use_example(options)
    for kind in options.grounder:
        check_grounder(options, kind)
    examples = example_files(options.examples)
    with ExitStack() as stack:
        # Before the minutes that loading can take.
        sockets = [stack.enter_context(s) for s in open_sockets(options.host, options.port)]
        from flmm.web.server import build_app
        from flmm.web.session import Demo

        makers = load_makers(options)
        if not options.example:
            say_how_phrases_are_found()
        app = build_app(
            Demo(makers, max_new_tokens=options.max_new_tokens, min_score=options.min_score),
            about=about(makers.lmm, options.checkpoint),
            examples=examples,
            hosts=allowed_hosts(options.host),
            history=not options.no_history,
        )
        serve(app, sockets, options.host)


def example_files(folder: Path | None) -> list[Path]:
    """List the pictures of a folder; FileNotFoundError where there are none."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}: pass one with pictures to --examples"
        )
    found = sorted(path for path in folder.iterdir() if is_image(path.name))
    if not found:
        raise FileNotFoundError(
            f"no picture in {folder}: --examples takes {', '.join(IMAGE_SUFFIXES)} files"
        )
    return found[:EXAMPLES_SHOWN]


def load_makers(options: Namespace) -> "MaskMakers":
    """Load the grounders that the options name, each also with coarse outlines."""
    from flmm.web.makers import Choice, MaskGrounder, MaskMakers, coarse_twin, refiner_of

    made: dict[Choice, MaskGrounder] = {}
    lmm = None
    for kind in dict.fromkeys(options.grounder):
        grounder: Any = grounder_from_options(options_of(options, kind), lmm)
        lmm = grounder.lmm
        if refiner_of(grounder).square.edge:
            made[Choice(kind, "refined")] = grounder
            heads = heads_file(options.checkpoint) if kind == "heads" else None
            grounder = coarse_twin(grounder, heads)
        made[Choice(kind, "coarse")] = grounder
    return MaskMakers(made)


def about(lmm: FrozenLMM, checkpoint: Path | None) -> str:
    """Return a line for the page: LMM, heads and device."""
    name: str = lmm.config.name_or_path
    if Path(name).is_dir():
        name = Path(name).name
    if checkpoint is None:
        return f"{name} · {lmm.device}"
    is_file_of_run = checkpoint.name == "heads.safetensors"
    heads = checkpoint.resolve().parent.name if is_file_of_run else checkpoint.name
    return f"{name} · heads {heads} · {lmm.device}"


def serve(app: Any, sockets: Sequence[socket.socket], host: str) -> None:
    """Answer requests until Ctrl-C, which is raised again when the last answer is finished."""
    import uvicorn

    from flmm.web.network import EVERYWHERE, TimedProtocol, addresses

    if host in EVERYWHERE:
        say("everybody who can reach this machine can use the page, without a password")
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        log_level="error",
        access_log=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    for bound in sockets:
        bound.listen()
    print("\n".join(addresses(sockets, host)), flush=True)
    say("open this in a browser; Ctrl-C ends it")
    try:
        server.run(sockets=list(sockets))
    finally:
        app.state.endpoints.close()
