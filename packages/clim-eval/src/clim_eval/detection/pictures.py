"""Annotated images as inputs of a detector."""

from clim_data import BrokenSample, decode_rgb
from clim_data.readers import AnnotatedImages

from clim_eval.evaluators.detections import Picture


class AnnotatedPictures:
    """The pixels of `AnnotatedImages`. An item is a `Picture`, or the BrokenSample of an unusable
    image."""

    def __init__(self, images: AnnotatedImages):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Picture | BrokenSample:
        opened = self.images[place]
        if isinstance(opened, BrokenSample):
            return opened
        try:
            pixels = decode_rgb(opened.image, name=opened.name)
        except BrokenSample as fault:
            return fault
        return Picture(opened.image_id, opened.name, pixels, opened.warning)
