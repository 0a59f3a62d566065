"""Measure the shape of the source code: folders, functions, imports, and things spelled twice.

Run `python tests/house/measures.py` for a table. The code is parsed, never imported or run. The
limits of these figures are in `test_layout.py`.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from house import spellings
from house.sources import Import, Module, circles, exported_names, is_table

PACKAGES = ("clim_data", "clim_models", "clim_eval", "clim_train", "flmm")
# Public modules that are no folder: their names without a leading underscore may be imported.
PUBLIC_MODULES = ("clim_data.lazy",)
MAX_PARAMETERS = 8
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 350
MAX_LINE_LENGTH = 100

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class House:
    """All modules of the five packages below `root`, the folder of the checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: dict[str, Module] = {}

        for path in sorted(root.glob("packages/*/src/*/**/*.py")):
            parts = path.with_suffix("").relative_to(root).parts[3:]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path)

        # Package or subpackage -> public name -> the module that defines it.
        self.exports: dict[str, dict[str, str]] = {}
        for module in self.modules.values():
            if module.is_package:
                self.exports[module.name] = dict(exported_names(module, self.modules))

    # -- size --------------------------------------------------------------------------------

    def folder_sizes(self) -> Counter[str]:
        """Count the files of every folder, `__init__.py` and its like included."""
        return Counter(module.folder for module in self.modules.values())

    def long_lines(self) -> list[str]:
        """Find lines with more than 100 characters."""
        found = []
        for module in self.modules.values():
            for number, line in enumerate(module.text.splitlines(), 1):
                if len(line) > MAX_LINE_LENGTH:
                    found.append(f"{self._place(module)}:{number}")
        return found

    def long_files(self) -> list[str]:
        """Find files of more than 350 lines."""
        lengths = {self._place(m): m.text.count("\n") for m in self.modules.values()}
        return [f"{place} {length}" for place, length in lengths.items() if length > MAX_FILE_LINES]

    def long_functions(self) -> list[str]:
        """Find functions of more than 60 lines, signature and docstring included."""
        found = []
        for module, function in self._functions():
            length = function.end_lineno - function.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{self._place(module)}:{function.lineno} {function.name} {length}")
        return found

    def wide_functions(self) -> dict[str, int]:
        """Find functions with more than 8 parameters: place -> number, without `self` and `cls`."""
        found = {}
        for module, function in self._functions():
            count = len(parameters(function))
            if count > MAX_PARAMETERS:
                found[f"{self._place(module)}:{function.lineno} {function.name}"] = count
        return found

    def nested_comprehensions(self) -> list[str]:
        """Find comprehensions that hold another one."""
        found = []
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, COMPREHENSIONS) and any(
                    holds_comprehension(c) for c in ast.iter_child_nodes(node)
                ):
                    found.append(f"{self._place(module)}:{node.lineno}")
        return found

    # -- imports -----------------------------------------------------------------------------

    def hidden_imports(self) -> list[str]:
        """Find names imported from another package that none of its `__init__.py` files exports."""
        found = []
        for module, item in self._cross_imports():
            package = item.module.split(".")[0]
            if item.name is None:
                is_public = item.module in self.exports
            else:
                inits = [name for name in self.exports if name.split(".")[0] == package]
                is_public = any(item.name in self.exports[name] for name in inits)
            if not is_public:
                found.append(f"{self._place(module)}:{item.line} {item.module}.{item.name}")
        return found

    def deep_imports(self) -> list[str]:
        """Find names imported from a module of another package that an `__init__.py` exports."""
        hidden = set(self.hidden_imports())
        found = []
        for module, item in self._cross_imports():
            place = f"{self._place(module)}:{item.line} {item.module}.{item.name}"
            is_direct = item.module in PUBLIC_MODULES or (
                item.module in self.exports
                and (item.name is None or item.name in self.exports[item.module])
            )
            if not is_direct and place not in hidden:
                found.append(place)
        return found

    def module_arrows(self) -> dict[str, set[str]]:
        """Return the modules that every module imports.

        A name that an `__init__.py` exports counts for the module that defines it.
        """
        arrows: dict[str, set[str]] = defaultdict(set)
        for module in self.modules.values():
            for item in module.imports:
                target = self._home(item)
                # A table of public names is no arrow: its modules are loaded when a name is used.
                if target is not None and target != module.name and not is_table(module):
                    arrows[module.name].add(target)
        return arrows

    def module_circles(self) -> list[list[str]]:
        """Find groups of modules that import each other, at import time or later."""
        return circles(self.module_arrows())

    def folder_circles(self) -> list[list[str]]:
        """Find groups of folders that import each other.

        A module next to the folders of a package stands for itself.
        """
        arrows: dict[str, set[str]] = defaultdict(set)
        for source, targets in self.module_arrows().items():
            for target in targets:
                if self._folder_or_module(source) != self._folder_or_module(target):
                    arrows[self._folder_or_module(source)].add(self._folder_or_module(target))
        return circles(arrows)

    # -- spellings ---------------------------------------------------------------------------

    def spelled_in(self, spelling: str) -> list[str]:
        """Find files with a tell-tale of `spellings.TELL_TALES`."""
        tell_tale = spellings.TELL_TALES[spelling]
        return [self._place(module) for module in self.modules.values() if tell_tale(module.tree)]

    # -- parts -------------------------------------------------------------------------------

    def _functions(self) -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for module in self.modules.values():
            for function in module.functions:
                yield module, function

    def _cross_imports(self) -> Iterator[tuple[Module, Import]]:
        for module in self.modules.values():
            for item in module.imports:
                package = item.module.split(".")[0]
                if package in PACKAGES and package != module.package:
                    yield module, item

    def _home(self, item: Import) -> str | None:
        """Return the module of ours that an import loads, or None."""
        if item.name is not None and f"{item.module}.{item.name}" in self.modules:
            return f"{item.module}.{item.name}"
        home = self.exports.get(item.module, {}).get(item.name or "")
        return home or (item.module if item.module in self.modules else None)

    def _folder_or_module(self, name: str) -> str:
        folder = self.modules[name].folder
        return name if folder in PACKAGES else folder

    def _place(self, module: Module) -> str:
        return str(module.path.relative_to(self.root / "packages"))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters without `self`, `cls`, `*args` and `**kwargs`."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in listed if argument.arg not in ("self", "cls")]


def holds_comprehension(node: ast.AST) -> bool:
    return any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node))


def figures(house: House) -> dict[str, int]:
    """Return every measure by name. Smaller is better for all of them."""
    wide = house.wide_functions()
    module_circles, folder_circles = house.module_circles(), house.folder_circles()

    found = {
        "files in the fullest folder": max(house.folder_sizes().values()),
        "functions with more than 8 parameters": len(wide),
        "parameters of the widest function": max(wide.values(), default=MAX_PARAMETERS),
        "functions over 60 lines": len(house.long_functions()),
        "files over 350 lines": len(house.long_files()),
        "lines over 100 characters": len(house.long_lines()),
        "nested comprehensions": len(house.nested_comprehensions()),
        "modules in import circles": sum(map(len, module_circles)),
        "folders in import circles": sum(map(len, folder_circles)),
        "hidden names imported by other packages": len(house.hidden_imports()),
        "public names imported by a deep path": len(house.deep_imports()),
    }
    for spelling in spellings.TELL_TALES:
        found[f"files that {spelling}"] = len(house.spelled_in(spelling))
    return found


def main() -> None:
    """Print the table, and with `--places` where each figure comes from."""
    house = House(Path(__file__).resolve().parents[2])
    for name, value in figures(house).items():
        print(f"{value:6,d}  {name}")

    if "--places" in sys.argv[1:]:
        details = {
            "widest": house.wide_functions(),
            "long functions": house.long_functions(),
            "long files": house.long_files(),
            "nested comprehensions": house.nested_comprehensions(),
            "module circles": house.module_circles(),
            "folder circles": house.folder_circles(),
            "hidden": house.hidden_imports(),
            "deep": house.deep_imports(),
        }
        details |= {spelling: house.spelled_in(spelling) for spelling in spellings.TELL_TALES}
        for name, places in details.items():
            print(f"\n{name}:")
            for place in places:
                print(
                    f"    {place} {places[place]}" if isinstance(places, dict) else f"    {place}"
                )


if __name__ == "__main__":
    main()
