"""The images of an annotation file, in the frame of its boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from clim_data.annotations.tables import ImageRecord
from clim_data.faults import BrokenSample, SampleWarning
from clim_data.pixels.decode import open_image
from clim_data.pixels.frames import check_frame
from clim_data.sources.expand import Sources
from clim_data.sources.images import open_named_images


class OpenedImage(NamedTuple):
    """An image whose pixels are not decoded yet.

    image_id: as in the annotations. name: as in the annotations. image: of `open_image`, as it is
    stored. warning: a warning about its frame, or None.
    """

    image_id: Any
    name: str
    image: Image.Image
    warning: SampleWarning | None


class AnnotatedImages(Dataset):
    """Images of a folder or of shards by the records of an annotation file. An item is an
    `OpenedImage`, or the BrokenSample of an unusable image.

    Boxes are in pixels of the stored image, so its EXIF tag does not turn it. An image whose size
    differs from its record is a fault.

    Args:
        images: folder of the image files, or shards (see `expand_sources`).
        records: images of `CocoRecords`.

    Raises:
        FileNotFoundError: there is no such folder or shard.
        ValueError: a name fits two samples of the shards.
    """

    def __init__(self, images: Sources, records: Sequence[ImageRecord]):
        self.records = list(records)
        self.files = open_named_images(images, [record.name for record in self.records])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> OpenedImage | BrokenSample:
        record = self.records[place]
        try:
            source, name = self.files.find(place)
            opened = open_image(source, name)
            warning = check_frame(opened, record.size, name)
        except BrokenSample as fault:
            return fault
        return OpenedImage(record.id, record.name, opened, warning)
