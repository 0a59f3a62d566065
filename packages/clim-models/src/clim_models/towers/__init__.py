"""Region features for each kind of image tower; `find_tower` picks the one that fits."""

from clim_models.towers.registry import SUPPORTED, find_tower
from clim_models.towers.tower import Readout, Stem, Tower

__all__ = ["SUPPORTED", "Readout", "Stem", "Tower", "find_tower"]
