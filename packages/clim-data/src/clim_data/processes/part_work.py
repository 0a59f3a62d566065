"""The flow of a job in parts: each rank does its own parts, rank 0 waits for the others."""

from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from clim_data.processes.parts import PartJob

Work = Callable[[Sequence[int], tqdm], dict[str, Any]]


def do_parts(parts: PartJob, work: Work, *, images: int, part_images: int) -> bool:
    """Do the missing parts of this rank; on rank 0 wait for the others.

    Args:
        parts: of the job; part n has the images from n * part_images on.
        work: of the places of some images, and a bar that it moves, the record of their part.
        images: how many there are.
        part_images: of a part.

    Returns:
        Whether this is rank 0, which joins the parts.

    Raises:
        ValueError: on rank 0, that another rank failed or is silent. An error of `work` passes
            through, and rank 0 hears of it.
    """
    numbers = parts.remaining_parts()
    places = [range(n * part_images, min((n + 1) * part_images, images)) for n in numbers]
    try:
        with tqdm(
            total=sum(map(len, places)),
            desc="images",
            unit="image",
            disable=parts.rank > 0,
            leave=False,
        ) as bar:
            for number, part in zip(numbers, places, strict=True):
                parts.write(number, work(part, bar))
    except BaseException as fault:
        parts.report_failure(fault)
        raise

    if parts.rank:
        return False
    parts.wait()
    return True
