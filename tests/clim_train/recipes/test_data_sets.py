"""`clim-data doctor` knows what every recipe trains on."""

import pytest
from clim_data import diagnose
from clim_train.recipes import RECIPES


# The quick start draws its data.
@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"clim_quickstart"}))
def test_every_recipe_has_its_data_sets(recipe, tmp_path):
    found = diagnose(tmp_path, [recipe])
    assert found
    assert all(f"clim-train {recipe}" in " ".join(dataset.recipes) for dataset in found)
