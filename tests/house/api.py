"""What the packages make public, read from their `__init__.py` files and their READMEs.

Files are parsed, not imported. A public `__init__.py` says its names twice, for Python in the table
that `lazy_names` is given and for checkers below `if TYPE_CHECKING:`; the README's table says them
a third time, for people.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from house.measures import PACKAGES, PUBLIC_MODULES, House
from house.sources import Import, imports_of, is_table

# What `python -m PACKAGE` runs. Code that starts a program in its own process may call `main`.
PROGRAMS = tuple(f"{package}.__main__" for package in PACKAGES)

TABLE_HEAD = re.compile(r"^\| name \| from \| .*\|\n\|[-:| ]+\|\n((?:\|.*\|\n?)*)", re.MULTILINE)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


@dataclass
class Door:
    """A public `__init__.py`.

    table: for each public name the module that defines it, as `lazy_names` gets it
    renamed: for each old name its new one
    typed: the same as `table`, as checkers read it
    """

    name: str
    table: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """A file that imports from the packages.

    area: where it counts: a package, `benchmarks`, `pages` or `tests of PACKAGE`
    package: the package whose modules it may import directly, or None
    """

    place: str
    area: str
    package: str | None
    imports: tuple[Import, ...]


class Api:
    """The public names of the checkout at `root`, and all files that use them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.house = House(root)
        self.doors: dict[str, Door] = {}

        for module in self.house.modules.values():
            if module.is_package and (door := read_door(module.name, module.tree)) is not None:
                self.doors[module.name] = door

    @cached_property
    def listed(self) -> dict[str, dict[str, str]]:
        """The tables of the READMEs: package -> public name -> the module to import it from."""
        pages = {package: self._page(package).read_text() for package in PACKAGES}
        return {package: listed_names(text) for package, text in pages.items()}

    def readers(self) -> Iterator[Reader]:
        """Yield every file outside a package's own code and tests that may import from it."""
        for module in self.house.modules.values():
            place = str(module.path.relative_to(self.root))
            yield Reader(place, module.package, module.package, tuple(module.imports))

        for path in sorted(self.root.glob("benchmarks/**/*.py")):
            yield self._reader(path, "benchmarks", None, path.read_text())

        pages = [self.root / "README.md", *self.root.glob("docs/*.md")]
        for page in sorted([*pages, *self.root.glob("packages/*/README.md")]):
            for block in PYTHON_BLOCK.findall(page.read_text()):
                yield self._reader(page, "pages", None, block)

        # Tests of a package know its modules. Helpers that several packages' tests share do, too.
        for package in PACKAGES:
            for path in sorted(self.root.glob(f"tests/{package}/**/*.py")):
                yield self._reader(path, f"tests of {package}", package, path.read_text())

    def hidden_imports(self) -> Iterator[tuple[str, str]]:
        """Yield (area, `place:line module.name`) of each import that goes round the public names."""
        for reader in self.readers():
            for item in reader.imports:
                package = item.module.split(".")[0]
                if package not in PACKAGES or package == reader.package:
                    continue
                if not self.is_public(item):
                    name = item.module if item.name is None else f"{item.module}.{item.name}"
                    yield reader.area, f"{reader.place}:{item.line} {name}"

    def is_public(self, item: Import) -> bool:
        """Whether an import takes a public name from where it is public."""
        if item.name == "main" and item.module in PROGRAMS:
            return True
        if item.name is None:
            return item.module in PACKAGES or item.module in self.doors
        if item.module in PUBLIC_MODULES:
            return not item.name.startswith("_")

        below = f"{item.module}.{item.name}"
        if item.name == "__version__" or below in self.doors or below in PUBLIC_MODULES:
            return item.module in PACKAGES
        if item.module in self.doors:
            return item.name in self.doors[item.module].table

        # A package whose `__init__.py` has not got the common form yet.
        return item.module in PACKAGES and item.name in self.house.exports[item.module]

    def _page(self, package: str) -> Path:
        return self.root / "packages" / package.replace("_", "-") / "README.md"

    def _reader(self, path: Path, area: str, package: str | None, text: str) -> Reader:
        imports = tuple(imports_of(ast.parse(text), ""))
        return Reader(str(path.relative_to(self.root)), area, package, imports)


def read_door(name: str, tree: ast.Module) -> Door | None:
    """Return what an `__init__.py` makes public, or None where it does not call `lazy_names`."""
    door = Door(name)
    is_door = False

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_names":
            is_door = True
            door.table = ast.literal_eval(node.args[1])
            for keyword in node.keywords:
                if keyword.arg == "renamed":
                    door.renamed = ast.literal_eval(keyword.value)

        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom):
                    # `import a as a` is how a checker learns that a name is exported.
                    for alias in statement.names:
                        if alias.asname == alias.name:
                            door.typed[alias.name] = statement.module or ""

    return door if is_door else None


def listed_names(page: str) -> dict[str, str]:
    """Read the tables `| name | from | what |` of a README: public name -> module.

    A row may list several names. A row without an explanation is a ValueError.
    """
    found = {}
    for rows in TABLE_HEAD.findall(page):
        for row in rows.splitlines():
            names, home, what = re.split(r"(?<!\\)\|", row.strip().strip("|"), maxsplit=2)
            if not what.strip(" |"):
                raise ValueError(f"a public name needs an explanation: {row}")
            for name in CODE.findall(names):
                if name in found:
                    raise ValueError(f"{name} is listed twice")
                found[name] = home.strip().strip("`")
    return found


def expected_names(api: Api, package: str) -> dict[str, str]:
    """Return what the README of a package must list: public name -> the module to import it from."""
    found = {}
    for door in api.doors.values():
        if door.name.split(".")[0] == package:
            # A name that the package exports as well is listed once, from the package.
            for name in door.table:
                if name != "__version__" and found.get(name) != package:
                    found[name] = door.name
    return found


def empty_doors(api: Api) -> list[str]:
    """Find doors whose file holds more than the table."""
    return [name for name in api.doors if not is_table(api.house.modules[name])]
