"""The packages' public names: typed, listed, and the only ones that others import."""

import ast
import os
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
from house import api as house_api
from house.measures import PACKAGES

ROOT = Path(__file__).resolve().parents[2]

# At most: imports that go round the public names, by who imports. Their owners lower these to 0.
HIDDEN = {
    "clim_eval": 0,
    "clim_train": 0,
    "flmm": 0,
    "benchmarks": 0,
    "pages": 0,
    "tests of clim_data": 0,
    "tests of clim_models": 0,
    "tests of clim_eval": 0,
    "tests of clim_train": 0,
    "tests of flmm": 0,
}
# Packages whose `__init__.py` has no common form yet, and those whose README has no table yet.
WITHOUT_TABLE: set[str] = set()
WITHOUT_PAGE: set[str] = set()

API = house_api.Api(ROOT)


def test_every_package_has_a_table_of_public_names():
    assert set(PACKAGES) - set(API.doors) <= WITHOUT_TABLE


@pytest.mark.parametrize("name", sorted(API.doors))
def test_checkers_see_the_names_that_python_loads(name):
    door = API.doors[name]
    assert door.typed == door.table
    assert list(door.table) == sorted(door.table), "sort the table by name"
    assert house_api.empty_doors(API) == []


@pytest.mark.parametrize("name", sorted(API.doors))
def test_every_public_name_loads(name):
    door, package = API.doors[name], import_module(name)
    for public in door.table:
        assert getattr(package, public) is not None
        # A name of a folder would be the folder once something in it is imported.
        assert f"{name}.{public}" not in API.house.modules

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for old, new in door.renamed.items():
            assert getattr(package, old) is getattr(package, new)


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - WITHOUT_PAGE))
def test_the_readme_lists_the_public_names(package):
    listed = dict(API.listed[package])
    of_modules = {n: listed.pop(n) for n in list(listed) if listed[n] in house_api.PUBLIC_MODULES}
    assert listed == house_api.expected_names(API, package)

    for name, module in of_modules.items():
        assert hasattr(import_module(module), name)


@pytest.fixture(scope="module")
def hidden():
    found: dict[str, list[str]] = {area: [] for area in HIDDEN}
    for area, place in API.hidden_imports():
        found.setdefault(area, []).append(place)
    return found


@pytest.mark.parametrize("area", HIDDEN)
def test_others_import_public_names_only(area, hidden):
    places = hidden[area]
    assert len(places) <= HIDDEN[area], "\n".join(places)


def test_no_area_is_forgotten(hidden):
    assert set(hidden) == set(HIDDEN)


# -- the reading of tables itself --------------------------------------------------------------

INIT = """
from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from toy.shapes import area as area, side as side
    from toy.shapes import hidden
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__, {"area": "toy.shapes", "side": "toy.shapes"}, renamed={"size": "area"}
    )
"""


def test_a_table_and_its_types_are_read():
    door = house_api.read_door("toy", ast.parse(INIT))
    assert door.table == door.typed == {"area": "toy.shapes", "side": "toy.shapes"}
    assert door.renamed == {"size": "area"}
    assert house_api.read_door("toy", ast.parse("x = 1")) is None


def test_rows_of_a_readme_are_read():
    page = "| name | from | what |\n|---|---|---|\n| `a`, `b` | `toy` | Two `things` |\n\n| x |\n"
    assert house_api.listed_names(page) == {"a": "toy", "b": "toy"}
    with pytest.raises(ValueError, match="needs an explanation"):
        house_api.listed_names(page.replace("Two `things`", ""))
    with pytest.raises(ValueError, match="listed twice"):
        house_api.listed_names(page.replace("`b`", "`a`"))


# -- a checker sees the types ------------------------------------------------------------------

MISTAKES = """
from clim_models import create_model

create_model(3)
create_model("a", nonsense=1)
"""


def test_a_checker_refuses_wrong_calls(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    # The cache is that of `hatch run lint`: without it, torch's types are read for half a minute.
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    ran = subprocess.run(
        [*command, "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path / "mistakes.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert "mistakes.py:4" in ran.stdout
    assert "[arg-type]" in ran.stdout
    assert "mistakes.py:5" in ran.stdout
    assert "[call-arg]" in ran.stdout
