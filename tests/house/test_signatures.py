"""Exported names and their signatures are those of the record.

After a change that is intended, `python tests/house/record.py signatures` writes the record anew.
"""

import pytest
from house import access, machine, signatures


@pytest.mark.parametrize("package", access.PACKAGES)
def test_exported_names_keep_their_signatures(package):
    recorded, _ = machine.load("signatures")
    found = signatures.exported(package)
    assert found == recorded["packages"][package]
    assert len(found) > 5


def test_a_signature_names_no_module():
    def example(path: "machine.Path", number: float = 0.5) -> machine.Path: ...

    expected = "function(path: 'Path', number: float = 0.5) -> Path"
    assert signatures.describe(example) == expected
