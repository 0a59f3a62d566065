"""What launchers put among a command's arguments."""

from collections.abc import Sequence


def without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher adds --local_rank=N, which the environment says as well."""
    return [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]
