"""Image towers of open_clip's names, built without weights."""

import re
from pathlib import Path

import open_clip
import pytest
from clim_models.more_models import MORE_MODELS
from clim_models.survey import main, survey_tower

README = Path(__file__).parents[2] / "packages/clim-models/README.md"


def rows_of_readme() -> list[tuple[str, str, bool]]:
    """(tower, example, whether mode "attention" works) of each row of the table of towers."""
    table = README.read_text().partition("| tower | examples |")[2].partition("\n\n")[0]
    found = []
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found += [(cells[0], name, cells[3] != "no") for name in re.findall(r"`([^`]+)`", cells[1])]
    return found


@pytest.mark.parametrize(("tower", "name", "attention"), rows_of_readme())
def test_the_table_of_towers_is_true(tower, name, attention):
    if name in MORE_MODELS and name not in open_clip.list_models():
        pytest.skip("an older timm does not have its trunk")
    found = survey_tower(name)
    assert found.refusal == ""
    assert found.attention == attention, tower


def test_the_table_has_rows():
    assert len(rows_of_readme()) >= 12


@pytest.mark.parametrize(
    ("name", "trunk"),
    [
        ("swin_base_patch4_window7_224", "SwinTransformer"),
        ("vit_relpos_medium_patch16_cls_224", "VisionTransformerRelPos"),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_name_of_its_trunk(name, trunk):
    assert survey_tower(name).refusal.startswith(
        f"no region features for TimmModel with trunk {trunk}"
    )


def test_the_command_counts(capsys):
    main(["RN50", "swin_base_patch4_window7_224"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RN50", "resnet", "32", "px", "dense,", "attention"]
    assert lines[-1] == "1 of 2 have region features"
