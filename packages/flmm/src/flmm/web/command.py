"""`flmm demo --checkpoint RUN [--port 7860]`: the web page."""

import socket
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clim_data.command_line import Commands, add_command
from clim_data.files import IMAGE_SUFFIXES, is_image

from flmm.commands.options import add_model_options, heads_file, load_from_options, say
from flmm.grounded import GroundedLMM

PORT = 7860
HOST = "127.0.0.1"
NEEDED = ("starlette", "uvicorn")
EXAMPLES_SHOWN = 12
EVERYWHERE = ("0.0.0.0", "::")


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
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="FOLDER",
        help="pictures to offer, the first twelve by name",
    )
    parser.add_argument(
        "--max-new-tokens", type=int, help="longest answer; default: 512, or what fits"
    )
    parser.add_argument("--host", default=HOST, help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=PORT, help="port to listen on; 0 takes a free one"
    )


def run(options: Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises ValueError or FileNotFoundError for mistakes of the user.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"the web page needs {' and '.join(missing)}: pip install 'flmm[demo]'")
    heads_file(options.checkpoint)
    examples = example_files(options.examples)
    with listening(options.host, options.port) as taken:  # before the minutes that loading can take
        from flmm.text.phrases import has_spacy
        from flmm.web.server import build_app
        from flmm.web.session import Demo

        model = load_from_options(options)
        if not has_spacy():
            say(
                "phrases are found by simple rules; for better ones: pip install 'flmm[chat]' and "
                "en_core_web_sm"
            )
        demo = Demo(model, max_new_tokens=options.max_new_tokens)
        app = build_app(
            demo,
            about=about(model, options.checkpoint),
            examples=examples,
            hosts=hosts(options.host),
        )
        serve(app, taken)


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


def listening(host: str, port: int) -> socket.socket:
    """Open a socket that is bound to the address; ValueError where that is not possible."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port} is no port: pass 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as fault:
        raise ValueError(
            f"--host {host} is not known ({fault}): pass an address of this machine"
        ) from fault
    try:
        bound.bind(address)
    except OSError as fault:
        bound.close()
        raise ValueError(
            f"cannot listen on {host}:{port} ({fault.strerror}): pass another --port, or 0 for a "
            "free one"
        ) from fault
    return bound


def hosts(host: str) -> list[str]:
    """Return the names that browsers may call this machine. Other names are refused, so that no
    page elsewhere can pose as it."""
    return ["*"] if host in EVERYWHERE else sorted({host, HOST, "localhost"})


def about(model: GroundedLMM, checkpoint: Path) -> str:
    """Return a line for the page: LMM, heads and device."""
    name: str = model.lmm.config.name_or_path
    if Path(name).is_dir():
        name = Path(name).name
    return f"{name} · heads {checkpoint} · {model.lmm.device}"


def serve(app: Any, taken: socket.socket) -> None:
    """Answer requests until Ctrl-C, which is raised again when the last answer is finished."""
    import uvicorn

    host, port = taken.getsockname()[:2]
    if host in EVERYWHERE:
        say("everybody who can reach this machine can use the page, without a password")
        host = socket.gethostname()
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    )
    taken.listen()
    print(f"http://{host}:{port}", flush=True)
    say("open this in a browser; Ctrl-C ends it")
    try:
        server.run(sockets=[taken])
    finally:
        app.state.endpoints.close()
