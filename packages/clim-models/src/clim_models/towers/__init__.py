"""Region features for each kind of image tower; `find_tower` picks the one that fits."""

from clim_models.towers.base import Readout, Stem, Tower
from clim_models.towers.find import SUPPORTED, find_tower

__all__ = ["SUPPORTED", "Readout", "Stem", "Tower", "find_tower"]
