"""The measures find what they look for, in a small house built for the purpose."""

import ast

import pytest
from house import measures, spellings

FILES = {
    "clim_data/__init__.py": '_EXPORTS = {"load": "loader"}\n',
    "clim_data/loader.py": "from clim_data.late import wait\ndef load(): ...\n",
    # The other half of a circle is imported inside a function.
    "clim_data/late.py": "def wait():\n    from clim_data import load\n    return load\n",
    "clim_data/deep/__init__.py": "from clim_data.deep.inner import shown\n",
    "clim_data/deep/inner.py": "def shown(): ...\ndef hidden(): ...\n",
    "clim_eval/__init__.py": "",
    "clim_eval/uses.py": (
        "from clim_data import load\n"
        "from clim_data.deep import shown\n"
        "from clim_data.loader import load as again\n"
        "from clim_data.deep.inner import hidden\n"
    ),
    "clim_eval/wide.py": (
        "class A:\n"
        "    def f(self, a, b, c, d, e, f, g, h, *, i): ...\n"
        "    def g(self, a, b, c, d, e, f, g, *, h): ...\n"
        "x = [[b for b in a] for a in y]\n"
        "z = [b for a in y for b in a]\n"
        f"# {'long ' * 20}\n"
    ),
    "clim_eval/long.py": "def f():\n" + "    pass\n" * 61 + "\n" * 300,
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    root = tmp_path_factory.mktemp("house")
    for name, text in FILES.items():
        package = name.split("/")[0]
        path = root / "packages" / package.replace("_", "-") / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return measures.House(root)


def test_sizes(house):
    assert house.folder_sizes() == {"clim_data": 3, "clim_data.deep": 2, "clim_eval": 4}
    assert [place.split()[-1] for place in house.long_files()] == ["362"]
    assert [place.split()[-2:] for place in house.long_functions()] == [["f", "62"]]
    assert [place.rpartition("/")[2] for place in house.long_lines()] == ["wide.py:6"]


def test_parameters_and_comprehensions(house):
    wide = house.wide_functions()
    assert [(place.split()[-1], count) for place, count in wide.items()] == [("f", 9)]
    assert [place.rpartition("/")[2] for place in house.nested_comprehensions()] == ["wide.py:4"]


def test_imports_between_packages(house):
    hidden, deep = house.hidden_imports(), house.deep_imports()
    assert [place.split()[-1] for place in hidden] == ["clim_data.deep.inner.hidden"]
    assert [place.split()[-1] for place in deep] == ["clim_data.loader.load"]


def test_circles_count_lazy_imports(house):
    assert house.module_circles() == [["clim_data.late", "clim_data.loader"]]
    assert house.folder_circles() == [["clim_data.late", "clim_data.loader"]]


@pytest.mark.parametrize(
    ("tell_tale", "code", "expected"),
    [
        (spellings.moves_a_draft, "os.replace(a, b)", True),
        (spellings.moves_a_draft, "draft.rename(path)", True),
        (spellings.moves_a_draft, "text.replace('a', 'b')", False),
        (spellings.moves_a_draft, "dataclasses.replace(config, run=run)", False),
        (spellings.asks_for_ranks, "torch.distributed.get_rank()", True),
        (spellings.asks_for_ranks, "os.environ.get('WORLD_SIZE', '1')", True),
        (spellings.asks_for_ranks, "'RANK and WORLD_SIZE are set'", False),
        (spellings.boxes_a_mask, "def f(m):\n return m.any(axis=1), m.any(axis=0)", True),
        (spellings.boxes_a_mask, "def f(m):\n return [m.any(a) for a in (1, 0)]", True),
        (spellings.boxes_a_mask, "def f(m):\n return m.any(-1, keepdim=True)", False),
        (spellings.starts_loading_workers, "torch.utils.data.DataLoader(data)", True),
        (spellings.starts_loading_workers, "load_in_workers(data, order, workers=2)", False),
    ],
)
def test_tell_tales(tell_tale, code, expected):
    assert tell_tale(ast.parse(code)) is expected
