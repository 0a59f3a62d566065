"""Does it work on a GPU, and how near is it to the limit: every check and every figure, in one run.

    python benchmarks/gpu.py --out FOLDER                     on a machine with a GPU: 20 minutes at most
    python benchmarks/gpu.py --out FOLDER --tiny              a rehearsal on a CPU, at the smallest sizes
    python benchmarks/gpu.py --out FOLDER --only training     one part

Each part runs in its own process with its own time limit, and rewrites FOLDER/PART.json after each
line. A part that fails leaves its traceback there, and the next part starts. The last thing printed
is a table of all parts, and FOLDER/gpu-CARD-DATE.json holds everything: parts that run later on the
same card and day are added to that file, and a part that runs again replaces its older lines.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PARTS
from gpu_parts.record import Part, without_folders
from machine import package_versions, processor

REHEARSAL_PATIENCE = 6
"""On a CPU, which may be busy, a part may take this many times its limit on a GPU."""

GRACE_SECONDS = 5.0
"""Time that a part has to end after SIGTERM, before it is killed."""

PRELOAD = ("torch", "torchvision", "open_clip", "deepspeed", "transformers")
"""Imported once, in the process from which all parts are forked. None of them may touch the GPU on
import."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and return 0 when every check passed, 1 otherwise."""
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu" if args.tiny else "cuda")

    began = time.monotonic()
    total = args.seconds * (REHEARSAL_PATIENCE if args.tiny else 1)
    import_libraries()
    parts = []
    for name in args.only:
        left = total - (time.monotonic() - began)
        parts.append(run_part(name, args.out.absolute(), device, tiny=args.tiny, seconds=left))

    result = {
        "machine": machine(device),
        "date": date.today().isoformat(),
        "tiny": args.tiny,
        "parts": parts,
    }
    path = args.out / file_name(result)
    result["parts"] = with_earlier(parts, path)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{table(parts)}\n\nwritten to {path}", flush=True)
    return 0 if all(passed(part) for part in parts) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. `only` is put into the order of the table of parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the json files")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
        help=f"parts to run: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="rehearse on the CPU, at the smallest sizes"
    )
    parser.add_argument("--seconds", type=float, default=1200, help="time limit on a GPU")
    args = parser.parse_args(argv)

    args.out = args.out.resolve()  # parts work in folders of their own
    args.only = [name for name in PARTS if name in args.only]
    if not args.tiny and not torch.cuda.is_available():
        parser.error("torch sees no GPU: rehearse on the CPU with --tiny")
    return args


# -- one part --------------------------------------------------------------------------------------


def run_part(
    name: str, out: Path, device: torch.device, *, tiny: bool, seconds: float
) -> dict[str, Any]:
    """Run a part in a process of its own and return its json, with a failure where it did not end
    by itself."""
    limit = min(PARTS[name].seconds * (REHEARSAL_PATIENCE if tiny else 1), seconds)
    part = Part(name, device, tiny, limit, out / name, out / f"{name}.json")
    if limit <= 0:
        part.failure = "not started: the time of the whole run was used up (see --seconds)"
        part.write()
        return part.as_json()

    print(f"{name}: {PARTS[name].about} (at most {limit:.0f} s)", flush=True)
    shutil.rmtree(part.folder, ignore_errors=True)  # files of an older run
    part.folder.mkdir()
    part.write()  # an older run's lines must not be taken for this one's
    began = time.monotonic()
    process = forkserver().Process(target=work, args=(part, PARTS[name].module), name=name)
    process.start()
    try:
        process.join(limit)
        late = process.is_alive()
    finally:
        # Also when this script is stopped: a part that went on would disturb whatever runs next.
        end(process)

    record = json.loads(part.path.read_text())
    record["seconds"] = round(time.monotonic() - began, 1)
    if late:
        record["failure"] = (
            f"ended after its limit of {limit:.0f} s; the lines above it are complete"
        )
    elif not record["done"] and record["failure"] is None:
        record["failure"] = f"its process died with exit status {process.exitcode}"
    part.path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"  {verdict(record)} in {record['seconds']:.0f} s", flush=True)
    return record


def work(part: Part, module: str) -> None:
    """Run a part, which `module` defines: the whole life of its process."""
    # A group of its own, so that programs which the part has started end with it.
    os.setpgrp()
    os.chdir(part.folder)
    if part.tiny:
        torch.set_num_threads(
            1
        )  # on tensors this small, and a busy machine, two threads only wait for each other
    if part.on_gpu:
        torch.cuda.init()
    try:
        import_module(module).run(part)
        part.done = True
    except Exception:
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        part.failure = without_folders(traceback.format_exc())
    part.write()


def end(process: BaseProcess) -> None:
    """End the process and the programs that it has started."""
    for number, grace in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        # The group outlives a process that has ended while one of its programs still runs.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.join(grace)
    process.kill()  # for one that had not yet made its group
    process.join()


def forkserver() -> Any:
    """Processes that begin with the imports done, no CUDA context and no threads of this
    process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def import_libraries() -> None:
    """Start the process from which parts are forked, and wait for its imports: no part pays for
    them."""
    first = forkserver().Process(target=os.getpid)
    first.start()
    first.join()


# -- the result ------------------------------------------------------------------------------------


def with_earlier(parts: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Return these parts and those of an earlier result file `path` that did not run again, in the
    order of the table of parts."""
    earlier = json.loads(path.read_text())["parts"] if path.exists() else []
    newest = {part["part"]: part for part in [*earlier, *parts]}
    return [newest[name] for name in PARTS if name in newest]


def passed(part: dict[str, Any]) -> bool:
    """Whether the part ran to its end and each of its checks holds."""
    return (
        part["done"]
        and part["failure"] is None
        and all(check["passed"] for check in part["checks"])
    )


def verdict(part: dict[str, Any]) -> str:
    """Say in a few words how a part went."""
    failed = sum(not check["passed"] for check in part["checks"])
    words = (
        f"{len(part['checks']) - failed} passed, {failed} failed, {len(part['figures'])} figures"
    )
    return words if part["failure"] is None else f"{words}; NOT COMPLETE"


def table(parts: Sequence[dict[str, Any]]) -> str:
    """Make the table that is printed last: one line per check or figure, grouped by part."""
    lines = []
    for part in parts:
        lines.append(f"== {part['part']}: {verdict(part)} ({part['seconds']:.0f} s)")
        lines += [check_line(check) for check in part["checks"]]
        lines += [figure_line(figure) for figure in part["figures"]]
        if part["failure"]:
            lines += [f"  {line}" for line in part["failure"].strip().splitlines()]
    right = sum(passed(part) for part in parts)
    return "\n".join(
        [*lines, f"== {right} of {len(parts)} parts complete and without a failed check"]
    )


def check_line(check: dict[str, Any]) -> str:
    """Make a line of a check; the last line of a traceback says what happened."""
    line = f"  {'pass' if check['passed'] else 'FAIL'}  {check['name']}"
    if check["error"] is not None:
        line += f": error {check['error']:.3g}, at most {check['tolerance']:.3g}"
    detail = check["detail"].strip().splitlines()
    return f"{line}  [{detail[-1]}]" if detail else line


def figure_line(figure: dict[str, Any]) -> str:
    """Make a line of a figure, with its share of the ceiling where it has one."""
    line = f"        {figure['name']}: {figure['value']:.4g} {figure['unit']}"
    if figure["share"] is not None:
        line += f", {figure['share']:.0%} of the ceiling"
    return f"{line}  [{figure['detail']}]" if figure["detail"] else line


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the card and the libraries, in general words: no host name, no paths."""
    on_gpu = device.type == "cuda"
    return {
        "card": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        if on_gpu
        else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "processor": processor(),
        "cores": os.cpu_count(),
        "packages": package_versions(),
    }


def file_name(result: dict[str, Any]) -> str:
    """Name the file by card and date, such as gpu-NVIDIA-H100-80GB-HBM3-2026-11-27.json."""
    card = re.sub(r"[^A-Za-z0-9]+", "-", result["machine"]["card"]).strip("-")
    return f"gpu-{card}-{result['date']}.json"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
