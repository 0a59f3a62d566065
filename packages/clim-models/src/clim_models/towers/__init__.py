"""Region features for each kind of image tower; `find_tower` picks the one that fits."""

from .base import Readout, Stem, Tower
from .find import SUPPORTED, find_tower

__all__ = ["SUPPORTED", "Readout", "Stem", "Tower", "find_tower"]
