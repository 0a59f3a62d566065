"""Modules beside the tests that several of them share."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load_beside(path: Path, name: str):
    """Import a file of the test folders by its path (pytest's importlib mode puts none of them on sys.path)."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def toy():
    return load_beside(HERE / "toy.py", "toy")


@pytest.fixture(scope="session")
def rank_worker(toy):
    return load_beside(HERE / "rank_worker.py", "clim_eval_rank_worker")


@pytest.fixture(scope="session")
def tiny_towers():
    """The builders of tiny towers of tests/clim_models: build_eva(case), build_vit(), ..."""
    return load_beside(HERE.parent / "clim_models" / "conftest.py", "clim_models_tiny_towers")
