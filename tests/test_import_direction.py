"""The packages' place in the picture: who may import whom, and which heavy libraries stay in one
place."""

import ast
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parent.parent / "packages"
MAY_IMPORT = {
    "clim_data": set(),
    "clim_models": set(),
    "clim_eval": {"clim_data", "clim_models"},
    "clim_train": {"clim_data", "clim_models", "clim_eval"},
    "flmm": {"clim_data", "clim_models", "clim_eval", "clim_train"},
}
# Library -> the only files that may import it (relative to packages/).
AT_HOME = {
    "deepspeed": "clim-train/src/clim_train/engine/",
    "webdataset": "clim-data/",
    "pycocotools": (
        "clim-data/",
        "clim-eval/src/clim_eval/metrics/matching.py",
        "clim-eval/src/clim_eval/metrics/tables.py",
    ),
    "transformers": "flmm/",
    "starlette": {
        f"flmm/src/flmm/web/{name}.py" for name in ("server", "line", "requests", "network")
    },
    "uvicorn": {f"flmm/src/flmm/web/{name}.py" for name in ("command", "network")},
}


def sources() -> list[Path]:
    return sorted(PACKAGES.glob("*/src/**/*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, also those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_there_is_something_to_check():
    assert {p.name for p in PACKAGES.glob("*/src/*") if p.is_dir()} <= set(MAY_IMPORT)
    assert len(sources()) > 30


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGES)))
def test_imports_point_upwards(path):
    relative = str(path.relative_to(PACKAGES))
    package = relative.split("/")[2]
    names = imported(path)
    ours = (names & set(MAY_IMPORT)) - {package}
    assert ours <= MAY_IMPORT[package], f"{relative} imports {sorted(ours - MAY_IMPORT[package])}"
    for library, home in AT_HOME.items():
        if library in names:
            allowed = relative in home if isinstance(home, set) else relative.startswith(home)
            assert allowed, f"{relative} imports {library}; its place is {home}"


# Entry points such as `python -m clim_train.quickstart` forward to experiments.
FORWARDERS = {"quickstart.py", "compare.py", "detect_quickstart.py"}


def experiments_in(path: Path) -> list[str]:
    """Modules of `experiments` folders that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [name for name in names if "experiments" in name.split(".")]
    return found


def test_the_core_does_not_import_experiments():
    core = [path for path in sources() if "experiments" not in path.relative_to(PACKAGES).parts]
    assert len(core) < len(sources())
    users = {path.name for path in core if experiments_in(path)}
    assert users == FORWARDERS


def test_an_import_of_experiments_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def run():\n    from flmm.experiments.heads import build_grounded\n")
    assert experiments_in(module)
