"""What the command lines of all packages share: how a command ends, and checks of its options."""

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUCCEEDED, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
WRONG_PATH = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


@dataclass(frozen=True)
class LibraryFailure:
    """A failure of the machine that libraries report, each in its own way, and what mends it.

    Args:
        classes: names of exception classes. Names, because the classes need imports that take
            seconds or packages that are not there.
        texts: parts of messages in lower case, for libraries that raise a plain RuntimeError.
        fix: the end of the line that the user reads.
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    fix: str

    def explains(self, error: BaseException) -> bool:
        """Return whether the error is of this kind."""
        names = {kind.__name__ for kind in type(error).__mro__}
        text = str(error).lower()
        return not names.isdisjoint(self.classes) or any(part in text for part in self.texts)


LIBRARY_FAILURES = (
    # First, because CUDA's own message about memory would pass for one about the GPU.
    LibraryFailure(
        classes=("MemoryError", "OutOfMemoryError"),
        texts=("out of memory", "not enough memory", "can't allocate memory"),
        fix="lower the batch size or the size of the images",
    ),
    LibraryFailure(
        classes=(),
        texts=(
            "no nvidia driver",
            "no cuda gpus are available",
            "not compiled with cuda",
            "no cuda-capable device",
            "cuda driver",
            "invalid device ordinal",
            "no kernel image is available",
        ),
        fix="check `nvidia-smi` and that torch is built for this GPU, or use the CPU "
        "(--device cpu; of a training --engine.device cpu)",
    ),
    LibraryFailure(
        classes=(
            "URLError",
            "gaierror",
            "ConnectionError",
            "ConnectError",
            "ConnectTimeout",
            "ReadTimeout",
            "TimeoutError",
            "LocalEntryNotFoundError",
            "OfflineModeIsEnabled",
        ),
        texts=("name resolution", "connection refused", "max retries exceeded", "couldn't connect"),
        fix="check the network, or pass files and folders that are on this machine",
    ),
)


def run_command(
    program: str,
    command: Callable[..., int | None],
    *arguments: object,
    continues: str = "the same command continues",
    statuses: Mapping[type[BaseException], int] | None = None,
) -> int:
    """Run `command(*arguments)` and return the exit status of the program.

    | status | event |
    |---|---|
    | 0 | it succeeded (or what the command returns) |
    | 1 | it failed on the way: full disk, no memory, no GPU, no network |
    | 2 | a mistake of the user, a folder that is in use, a package that is not installed |
    | 130 | interrupted with Ctrl-C |

    Each of them but 0 is explained in one line on stderr, which ends with the fix. An error that
    nobody foresaw is raised: its traceback is what its report needs.

    Args:
        program: what the line begins with, for example "clim-eval regions".
        continues: says what continues the work after a full disk or Ctrl-C.
        statuses: the program's own errors, whose messages say everything, and their statuses.
    """
    try:
        return command(*arguments) or SUCCEEDED
    except KeyboardInterrupt:
        status, line = INTERRUPTED, f"interrupted; {continues}"
    except Exception as error:
        for kind, own_status in (statuses or {}).items():
            if isinstance(error, kind):
                status, line = own_status, str(error)
                break
        else:
            explained = _explain(error, continues)
            if explained is None:
                raise
            status, line = explained

    print(f"{program}: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return status


def _explain(error: Exception, continues: str) -> tuple[int, str] | None:
    """Return status and line for an error of the exit table, None for any other error."""
    if isinstance(error, BrokenPipeError):  # the reader of our output left: no fault of the network
        return FAILED, f"{error}: what read the output has ended"
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return FAILED, f"{error}: make room, then {continues}"

    # Our own messages, which end with the fix, may quote a library: only the error's class counts.
    ours = isinstance(error, ValueError | ImportError | FileNotFoundError)
    for failure in LIBRARY_FAILURES:
        known = failure.explains(error) if not ours else type(error).__name__ in failure.classes
        if known:
            return FAILED, f"{_first_line(error)}: {failure.fix}"

    if ours:
        return MISTAKE, str(error)
    if not isinstance(error, OSError):
        return None

    if error.errno in WRONG_PATH:
        return MISTAKE, f"{error}: check that path and who may write there, or name another"
    if error.errno is None:  # libraries raise it for a file or folder that they cannot use
        return MISTAKE, str(error)
    return FAILED, f"{error}: check that path and its disk, then {continues}"


def _first_line(error: Exception) -> str:
    """Return the part of a library's message that says what happened; advice follows it."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def need_path(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Raise ValueError when the option is missing, FileNotFoundError when its path is no file (or
    folder)."""
    if path is None:
        raise ValueError(f"this needs {option} PATH: pass it")
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise FileNotFoundError(f"{path} is not a {kind}: pass the right one with {option}")


def one_argument(values: Sequence[str], form: str) -> str:
    """The only one of `values`. Raises ValueError, which quotes the command's `form`, for more or
    none."""
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `{form}`")
    return values[0]


def without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher adds --local_rank=N, which the environment says as well."""
    return [
        argument
        for argument in arguments
        if not argument.startswith(("--local_rank=", "--local-rank="))
    ]
