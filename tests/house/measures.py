"""Measure the shape of the source code: folders, functions, imports, and things that are spelled twice.

Run `python tests/house/measures.py` for a table. The code is parsed, never imported or run. The limits that these
figures must keep are in `test_layout.py`.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from house import spellings

PACKAGES = ("clim_data", "clim_models", "clim_eval", "clim_train", "flmm")
MAX_PARAMETERS = 8
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 350
MAX_LINE_LENGTH = 100

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name`, or `import module` where name is None."""

    line: int
    module: str
    name: str | None


@dataclass(frozen=True)
class Module:
    """One source file. `name` is its dotted name, `clim_data.loader`; a package has that of its folder."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def is_package(self) -> bool:
        return self.path.stem == "__init__"

    @property
    def folder(self) -> str:
        """Dotted name of the folder that the file is in."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)]

    @cached_property
    def imports(self) -> list[Import]:
        """All imports, also those inside functions and those for type checkers only."""
        return list(imports_of(self.tree, self.folder))


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

    # -- size --------------------------------------------------------------------------------------------------

    def folder_sizes(self) -> Counter[str]:
        """Files per folder, `__init__.py` and its like included."""
        return Counter(module.folder for module in self.modules.values())

    def long_lines(self) -> list[str]:
        """Places of lines with more than 100 characters."""
        found = []
        for module in self.modules.values():
            for number, line in enumerate(module.text.splitlines(), 1):
                if len(line) > MAX_LINE_LENGTH:
                    found.append(f"{self._place(module)}:{number}")
        return found

    def long_files(self) -> list[str]:
        """Files of more than 350 lines."""
        lengths = {self._place(m): m.text.count("\n") for m in self.modules.values()}
        return [f"{place} {length}" for place, length in lengths.items() if length > MAX_FILE_LINES]

    def long_functions(self) -> list[str]:
        """Functions of more than 60 lines, signature and docstring included."""
        found = []
        for module, function in self._functions():
            length = function.end_lineno - function.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{self._place(module)}:{function.lineno} {function.name} {length}")
        return found

    def wide_functions(self) -> dict[str, int]:
        """Place -> number of parameters of functions that have more than 8, `self` and `cls` not counted."""
        found = {}
        for module, function in self._functions():
            count = len(parameters(function))
            if count > MAX_PARAMETERS:
                found[f"{self._place(module)}:{function.lineno} {function.name}"] = count
        return found

    def nested_comprehensions(self) -> list[str]:
        """Places of comprehensions that hold another one."""
        found = []
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, COMPREHENSIONS) and any(holds_comprehension(c) for c in ast.iter_child_nodes(node)):
                    found.append(f"{self._place(module)}:{node.lineno}")
        return found

    # -- imports -----------------------------------------------------------------------------------------------

    def hidden_imports(self) -> list[str]:
        """Names imported from another package that none of its `__init__.py` files exports."""
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
        """Names imported from another package by the path of a module, though an `__init__.py` exports them."""
        hidden = set(self.hidden_imports())
        found = []
        for module, item in self._cross_imports():
            place = f"{self._place(module)}:{item.line} {item.module}.{item.name}"
            is_direct = item.module in self.exports and (item.name is None or item.name in self.exports[item.module])
            if not is_direct and place not in hidden:
                found.append(place)
        return found

    def module_arrows(self) -> dict[str, set[str]]:
        """Module -> modules that it imports; a name exported by an `__init__.py` counts for the module it is from."""
        arrows: dict[str, set[str]] = defaultdict(set)
        for module in self.modules.values():
            for item in module.imports:
                target = self._home(item)
                # A table of public names is no arrow: its modules are loaded when a name is used.
                if target is not None and target != module.name and not is_table(module):
                    arrows[module.name].add(target)
        return arrows

    def module_circles(self) -> list[list[str]]:
        """Groups of modules that import each other, at any time."""
        return circles(self.module_arrows())

    def folder_circles(self) -> list[list[str]]:
        """Groups of folders that import each other. A module beside the folders of a package stands for itself."""
        arrows: dict[str, set[str]] = defaultdict(set)
        for source, targets in self.module_arrows().items():
            for target in targets:
                if self._folder_or_module(source) != self._folder_or_module(target):
                    arrows[self._folder_or_module(source)].add(self._folder_or_module(target))
        return circles(arrows)

    # -- spellings ---------------------------------------------------------------------------------------------

    def spelled_in(self, spelling: str) -> list[str]:
        """Files with the tell-tale of something that should have one home, see `spellings.TELL_TALES`."""
        tell_tale = spellings.TELL_TALES[spelling]
        return [self._place(module) for module in self.modules.values() if tell_tale(module.tree)]

    # -- parts -------------------------------------------------------------------------------------------------

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
        """The module of ours that an import loads, or None."""
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
    """Names of a function's parameters without `self`, `cls`, `*args` and `**kwargs`."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in listed if argument.arg not in ("self", "cls")]


def holds_comprehension(node: ast.AST) -> bool:
    return any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node))


def imports_of(tree: ast.AST, folder: str) -> Iterator[Import]:
    """Every import below `tree`; relative ones are resolved from the dotted name of the file's `folder`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = folder.split(".")
                above = above[: len(above) - node.level + 1]
                module = ".".join([*above, *module.split(".")]).rstrip(".")
            for alias in node.names:
                yield Import(node.lineno, module, alias.name)


def is_table(module: Module) -> bool:
    """Whether a file is an `__init__.py` that only lists public names."""
    defined = {node.name for node in module.tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
    return module.is_package and defined <= {"__getattr__", "__dir__"}


def exported_names(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """(public name, module that defines it) of an `__init__.py`: of its imports, its lazy tables and its stub file."""
    trees = [module.tree]
    stub = module.path.with_suffix(".pyi")
    if stub.exists():
        trees.append(ast.parse(stub.read_text()))

    for tree in trees:
        for item in imports_of(tree, module.folder):
            if item.name is not None and item.module in modules:
                yield item.name, item.module

    # A lazy table is a dict of text at module level: name -> module, absolute or relative to the package.
    for node in module.tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            for key, home in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(home, ast.Constant):
                    near = f"{module.name}.{str(home.value).lstrip('.')}"
                    target = near if near in modules else str(home.value)
                    if target in modules:
                        yield str(key.value), target


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of two and more nodes, sorted (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)

        for target in arrows.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])

        # The node that was reached first closes its group.
        if low[node] == index[node]:
            place = stack.index(node)
            group = sorted(stack[place:])
            del stack[place:]
            if len(group) > 1:
                found.append(group)

    for node in list(arrows):
        if node not in index:
            visit(node)
    return sorted(found)


def figures(house: House) -> dict[str, int]:
    """Every measure by name; smaller is better for all of them."""
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
                print(f"    {place} {places[place]}" if isinstance(places, dict) else f"    {place}")


if __name__ == "__main__":
    main()
