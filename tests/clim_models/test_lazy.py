"""Public names of a package load on first use."""

import sys
import warnings

import pytest
from clim_models.lazy import lazy_names

INIT = """
from clim_models.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"answer": "toy_house.later"}, renamed={"reply": "answer"}
)
"""


@pytest.fixture
def toy_house(tmp_path, monkeypatch):
    """A package whose public name `answer` stands in its module `later`."""
    folder = tmp_path / "toy_house"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "later.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    import toy_house

    yield toy_house
    for name in ("toy_house", "toy_house.later"):
        sys.modules.pop(name, None)


def test_a_module_is_imported_when_its_name_is_used_and_not_before(toy_house):
    assert dir(toy_house) == toy_house.__all__ == ["answer"]
    assert "toy_house.later" not in sys.modules

    from toy_house import answer

    assert answer == toy_house.answer == 42
    assert "toy_house.later" in sys.modules


def test_an_old_name_works_and_warns_at_the_line_that_uses_it(toy_house):
    with pytest.warns(DeprecationWarning, match="toy_house.reply is now called answer") as caught:
        from toy_house import reply

    assert reply == 42
    assert {warning.filename for warning in caught} == {__file__}
    assert "reply" not in dir(toy_house)


def test_the_new_name_does_not_warn(toy_house):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert toy_house.answer == 42


def test_an_unknown_name_is_an_attribute_error_that_lets_python_suggest(toy_house):
    with pytest.raises(AttributeError, match="'toy_house' has no attribute 'anwser'") as caught:
        toy_house.anwser  # noqa: B018
    assert caught.value.name == "anwser"
    assert caught.value.obj is toy_house
    assert not hasattr(toy_house, "__path_of_nothing__")


@pytest.mark.parametrize("renamed", [{"old": "nowhere"}, {"answer": "answer"}])
def test_an_old_name_leads_to_a_public_name_and_is_none_itself(renamed):
    with pytest.raises(
        ValueError, match="the new name must be a public name, the old one must not"
    ):
        lazy_names("toy_house", {"answer": "toy_house.later"}, renamed=renamed)
