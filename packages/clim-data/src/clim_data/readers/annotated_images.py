"""The images that an annotation file names, in the frame of its boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from clim_data.annotations.tables import ImageRecord
from clim_data.faults import BrokenSample, SampleWarning
from clim_data.files.names import locate
from clim_data.pixels.decode import open_image
from clim_data.pixels.frames import check_frame


class OpenedImage(NamedTuple):
    """An image whose pixels are not decoded yet.

    image_id: as in the annotations. name: as in the annotations. image: of `open_image`, as it is
    stored. warning: what is odd about its frame.
    """

    image_id: Any
    name: str
    image: Image.Image
    warning: SampleWarning | None


class AnnotatedImages(Dataset):
    """Images of a folder by the records of an annotation file; an item is an `OpenedImage`, or the
    BrokenSample that says why there is none.

    Boxes are in pixels of the stored image, so its EXIF tag does not turn it. An image of another
    size than its record says is left out.

    Args:
        folder: of the image files.
        records: images of `CocoRecords`.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, folder: str | Path, records: Sequence[ImageRecord]):
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"no image folder {folder}: give the folder that holds the image files"
            )
        self.folder, self.records = Path(folder), list(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> OpenedImage | BrokenSample:
        record = self.records[place]
        try:
            path = locate(self.folder, record.name)
            opened = open_image(path, str(path))
            warning = check_frame(opened, record.size, str(path))
        except BrokenSample as fault:
            return fault
        return OpenedImage(record.id, record.name, opened, warning)
