"""The stored summary of the recipes, with which `clim-train list` answers at once."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from clim_data import DATASETS
from clim_train.commands.main import main
from clim_train.commands.record_recipes import help_of
from clim_train.commands.start import main as start
from clim_train.recipes.catalogue import is_recipe, list_recipes, read_catalogue, stored_help
from clim_train.recipes.table import RECIPES, summaries

CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
RECORD = "run `python -m clim_train.commands.record_recipes`"


def test_the_catalogue_has_all_recipes_as_they_are():
    found = {
        name: summary
        for name, summary in summaries().items()
        if RECIPES[name].function.__module__.startswith("clim_train.")
    }
    assert read_catalogue() == found, RECORD
    assert all(summary.gb for summary in read_catalogue().values()), RECORD


def test_list_is_sorted_by_method_and_knows_json(capsys):
    assert start(["list"]) == 0
    table = capsys.readouterr().out
    assert start(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in listed] == sorted(row["method"] for row in listed)
    assert [row["name"] for row in listed if row["offline"]] == ["clim_quickstart"]
    assert all(f"| {row['name']} " in table for row in listed)

    transfer = table.splitlines()[-1]
    assert "clim-eval detection RUN --transfer coco" in transfer
    needs = transfer.partition("--need ")[2].partition("`")[0].split()
    assert needs
    assert set(needs) <= set(DATASETS)
    assert set(re.findall(r"fvit_\w+", transfer)) <= set(read_catalogue())

    with pytest.raises(ValueError, match="--json"):
        start(["list", "--csv"])


def test_recipes_of_a_user_are_listed_without_memory(capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "mine", replace(RECIPES["clim_quickstart"]))
    assert main(["list", "--json"]) == 0
    mine = {row["name"]: row for row in json.loads(capsys.readouterr().out)}["mine"]
    assert mine["gb"] is None
    assert "| -" in list_recipes(summaries())


def test_a_recipe_that_is_not_in_the_catalogue_yet_is_found():
    assert is_recipe("clim_coco_vitb16")
    assert not is_recipe("clim_coco_vitb61")
    assert is_recipe("read_catalogue")  # any function of these modules: the command looks closer


@pytest.mark.skipif(
    f"tyro=={version('tyro')}" not in CONSTRAINTS.read_text().splitlines(),
    reason="the help is stored as the tyro of constraints.txt lays it out",
)
def test_stored_help_is_what_the_options_say(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for name in read_catalogue():
        made = help_of(name).splitlines()
        assert (stored_help(name) or "").splitlines() == made, f"of {name}: {RECORD} --help-only"


def test_narrow_terminals_and_recipes_of_users_get_help_of_their_own(monkeypatch):
    assert stored_help("mine") is None
    monkeypatch.setenv("COLUMNS", "60")
    assert stored_help("clim_coco_vitb16") is None


@pytest.mark.parametrize(
    "words", [["list"], ["list", "--json"], ["clim_coco_vitb61"], ["clim_coco_vitb16", "--help"]]
)
def test_answers_need_no_torch(words):
    code = f"""
import sys
from clim_train.commands.start import main
try:
    main({words!r})
except ValueError as error:
    assert "did you mean 'clim_coco_vitb16'" in str(error)
sys.exit(", ".join({{"torch", "torchvision", "open_clip"}} & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
