"""The shape of the source code stays within limits, which only go down."""

from pathlib import Path

import pytest
from house import floors, measures

# At most. `python tests/house/measures.py --places` prints the figures and where they are from.
LIMITS = {
    "files in the fullest folder": 20,
    "functions with more than 8 parameters": 0,
    "parameters of the widest function": 8,
    "functions over 60 lines": 0,
    "files over 350 lines": 0,
    "lines over 100 characters": 0,
    "nested comprehensions": 0,
    "modules in import circles": 0,
    "folders in import circles": 0,
    # test_api.py counts both by who imports.
    "hidden names imported by other packages": 0,
    "public names imported by a deep path": 0,
    "files that rename a draft": 3,
    "files that ask for rank or world size": 2,
    "files that make the box of a mask": 1,
    "files that load items in worker processes": 1,
}


@pytest.fixture(scope="module")
def house():
    return measures.House(Path(__file__).resolve().parents[2])


@pytest.fixture(scope="module")
def figures(house):
    return measures.figures(house)


@pytest.mark.parametrize("measure", LIMITS)
def test_measure_stays_within_its_limit(measure, figures):
    limit = LIMITS[measure]
    assert figures[measure] <= limit, f"{measure}: see `python tests/house/measures.py --places`"


def test_every_measure_has_a_limit(figures):
    assert set(figures) == set(LIMITS)


def test_a_folder_imports_from_lower_floors_of_its_package(house):
    assert list(floors.arrows_up(house.module_arrows())) == []


def test_every_folder_has_a_floor(house):
    for module in house.modules:
        floors.place_of(module)
    assert floors.unused_lines(house) == []


def test_an_arrow_that_leads_up_or_along_is_found():
    arrows = {"clim_data.files.atomic": {"clim_data.streams.draw", "clim_data.files.names"}}
    assert list(floors.arrows_up(arrows)) == ["clim_data.files.atomic -> clim_data.streams.draw"]
    arrows = {"clim_data.files.atomic": {"clim_data.pixels.boxes", "clim_data.faults"}}
    assert list(floors.arrows_up(arrows)) == ["clim_data.files.atomic -> clim_data.pixels.boxes"]
    with pytest.raises(KeyError, match="add its folder"):
        floors.place_of("clim_data.attic.box")
