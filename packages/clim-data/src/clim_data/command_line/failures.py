"""Failures of the machine as libraries report them, and one line with the fix for each.

Libraries report the same failure in many ways: with their own class, with an OSError and its
number, or with a plain RuntimeError and only its text. Classes are compared by their names, because
they need imports that take seconds or packages that are not installed.
"""

import errno
import re
from dataclasses import dataclass

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
WRONG_PATH = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
FULL_TABLE = (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class LibraryFailure:
    """A failure of the machine, and its fix.

    Args:
        classes: names of exception classes that mean it.
        numbers: values of `errno` that mean it.
        texts: parts of messages in lower case, for libraries that raise a plain RuntimeError.
        fix: the end of the line that the user reads.
        event: the beginning of that line; "" is the first line of the library's message.
    """

    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    fix: str
    event: str = ""

    def explains(self, error: BaseException, *, by_class_only: bool) -> bool:
        """Return whether the error is of this kind."""
        if by_class_only:
            return type(error).__name__ in self.classes
        if not {kind.__name__ for kind in type(error).__mro__}.isdisjoint(self.classes):
            return True
        if isinstance(error, OSError) and error.errno in self.numbers:
            return True
        text = str(error).lower()
        return any(part in text for part in self.texts)


# The first that explains an error counts.
LIBRARY_FAILURES = (
    # Before shared memory, which is made of open files.
    LibraryFailure(
        classes=(),
        numbers=FULL_TABLE,
        texts=("too many open files", "items of ancdata"),
        fix="raise the limit with `ulimit -n 65536`, or lower --workers",
    ),
    # Before killed workers: a worker that found shared memory full is killed by a bus error.
    LibraryFailure(
        classes=("SharedMemoryError",),
        numbers=(),
        texts=(
            "unable to open shared memory",
            "unable to allocate shared memory",
            "unable to mmap",
            "insufficient shared memory",
            "out of shared memory",
            "bus error",
        ),
        fix="make shared memory (/dev/shm) larger (docker run --shm-size 8g), or pass --workers 0 "
        "(of a training --data.workers 0)",
    ),
    LibraryFailure(
        classes=("BrokenProcessPool",),
        numbers=(),
        texts=("exited unexpectedly", "is killed by signal"),
        fix="a worker process was killed; the machine may be out of memory: lower --workers "
        "(of a training --data.workers)",
    ),
    # Before the GPU, because CUDA's own message about memory would pass for one about the GPU.
    LibraryFailure(
        classes=("MemoryError", "OutOfMemoryError"),
        numbers=(errno.ENOMEM,),
        texts=(
            "out of memory",
            "not enough memory",
            "can't allocate memory",
            "cannot allocate memory",
            "failed to map segment",
        ),
        fix="lower the batch size or the size of the images",
    ),
    LibraryFailure(
        classes=(),
        numbers=(),
        texts=(
            "no nvidia driver",
            "no cuda gpus are available",
            "not compiled with cuda",
            "no cuda-capable device",
        ),
        fix="leave --device out (of a training --engine.device), or install torch for CUDA and "
        "check `nvidia-smi`",
        event="no CUDA device here",
    ),
    LibraryFailure(
        classes=(),
        numbers=(),
        texts=(
            "cuda driver",
            "invalid device ordinal",
            "no kernel image is available",
            "torch not compiled with",
            "not linked with support for mps",
            "deserialize object on a cuda device",
        ),
        fix="check `nvidia-smi` and that torch is built for this GPU, or use the CPU "
        "(--device cpu; of a training --engine.device cpu)",
    ),
    LibraryFailure(
        classes=(),
        numbers=(),
        texts=("invalid device string", "expected one of cpu, cuda"),
        fix="pass --device cpu, cuda or cuda:NUMBER",
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
        numbers=(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ETIMEDOUT),
        texts=(
            "name resolution",
            "connection refused",
            "max retries exceeded",
            "couldn't connect",
            "failed to download",
        ),
        fix="check the network, or pass files and folders that are on this machine",
    ),
)


def explain_failure(error: BaseException, *, by_class_only: bool) -> str | None:
    """Return the failure of the machine and its fix, None for any other error.

    `by_class_only` is for our own messages, which already end with the fix and may quote a library.
    """
    for failure in LIBRARY_FAILURES:
        if failure.explains(error, by_class_only=by_class_only):
            return f"{failure.event or first_line(error)}: {failure.fix}"
    return None


# What numpy says of an array that did not fit.
_CUT_ARRAY = re.compile(r"\d+ requested and \d+ written")


def full_disk(error: BaseException) -> bool:
    """Return whether an error of any class means that a disk is full.

    safetensors, torch and zipfile put the system's number into the text of an error of their own;
    numpy has none at all.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL_DISK
    text = str(error)
    if "shared memory" in text:  # torch; more room on a disk does not help
        return False
    if _CUT_ARRAY.fullmatch(text):
        return True
    # safetensors before 0.6 writes the second.
    return "No space left on device" in text or any(
        f"os error {number})" in text or f"Os {{ code: {number}," in text for number in FULL_DISK
    )


# The error with which torch reports an error in a loading process: its text has the whole
# traceback.
_FROM_WORKER = re.compile(r"Caught \w+ in .*process \d+\.\nOriginal Traceback")
_LAST_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Sample|Warning)|[\w.]*OutOfMemory\w*): ?")


def message_of(error: BaseException) -> str:
    """Return the message of an error, without the traceback of a loading process."""
    text = str(error).strip()
    if not _FROM_WORKER.match(text):
        return text

    lines = text.splitlines()
    for place in range(len(lines) - 1, 0, -1):
        if _LAST_LINE.match(lines[place]):
            lines[place] = _LAST_LINE.sub("", lines[place])
            return "\n".join(lines[place:])
    return lines[-1]


def first_line(error: BaseException) -> str:
    """Return the part of a library's message that describes the event; advice follows it."""
    lines = message_of(error).splitlines()
    return lines[0].rstrip(" .:") if lines and lines[0] else type(error).__name__
