"""Tiny towers for the training tests, and one launch of two processes that several tests look at."""

import pytest
from tiny_training import register_tiny_towers


@pytest.fixture(autouse=True, scope="session")
def _tiny_towers():
    register_tiny_towers()
