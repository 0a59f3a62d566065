"""Pictures of a list that cannot be read: left out, counted and named, while the rest goes on.

clim-data has the same rule and words for folders and shards; neither package may import the other.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator

from clim_models.pipelines.pictures import Source, name_of_picture
from clim_models.pipelines.reading import ReadPicture, read_ahead

ON_ERROR = ("skip", "raise")
# How many pictures a message names.
NAMED = 10


def check_on_error(on_error: str) -> None:
    """Raise ValueError for a value that is neither "skip" nor "raise"."""
    if on_error not in ON_ERROR:
        raise ValueError(f'on_error={on_error!r}: choose "skip" (count and name) or "raise"')


class PictureList:
    """Pictures of a list, read ahead of a model; what cannot be read is counted and named.

    Args:
        read: reads a picture, given as (number, source).
        on_error: "skip" or "raise", see `PipelineOptions`.

    Attributes:
        total: pictures so far.
        skipped: what is wrong with each picture that is left out.
    """

    def __init__(self, read: Callable[[tuple[int, Source]], ReadPicture], on_error: str):
        self._read = read
        self._raises = on_error == "raise"
        self.total = 0
        self.skipped: list[str] = []

    def read(self, pictures: Iterable[Source], *, ahead: int) -> Iterator[ReadPicture]:
        """Yield each picture in order; one that cannot be read has `error` and no pixels.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read, where `on_error` is
                "raise".
        """
        for picture in read_ahead(self._one, enumerate(pictures), ahead=ahead):
            self.total += 1
            if picture.error:
                self.skipped.append(picture.error)
            yield picture

    def leave_out(self, picture: ReadPicture, error: ValueError) -> ReadPicture:
        """Return what stands for a picture that was read and cannot be used; count and name it.

        Raises:
            ValueError: `error`, where `on_error` is "raise".
        """
        if self._raises:
            raise error
        self.skipped.append(str(error))
        return ReadPicture.unread(picture.source, picture.name, str(error))

    def finish(self) -> None:
        """Warn of the pictures that were left out.

        Raises:
            ValueError: all of them were.
        """
        count = len(self.skipped)
        if not count:
            return
        told = "; ".join(self.skipped[:NAMED])
        if count > NAMED:
            told += f"; and {count - NAMED} more"
        if count == self.total:
            raise ValueError(f"none of {self.total} pictures can be used: {told}")
        warnings.warn(f"skipped {count} of {self.total} pictures: {told}", stacklevel=3)

    def _one(self, numbered: tuple[int, Source]) -> ReadPicture:
        try:
            return self._read(numbered)
        except (FileNotFoundError, ValueError) as error:
            if self._raises:
                raise
            number, source = numbered
            return ReadPicture.unread(source, name_of_picture(source, number), str(error))
