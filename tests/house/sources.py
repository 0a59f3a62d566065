"""Source files as parsed modules: what they import, what an `__init__.py` exports, and circles."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name`, or `import module` where name is None."""

    line: int
    module: str
    name: str | None


@dataclass(frozen=True)
class Module:
    """One source file.

    name: dotted, such as `clim_data.loader`; an `__init__.py` has the name of its folder.
    """

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


def imports_of(tree: ast.AST, folder: str) -> Iterator[Import]:
    """Yield every import below `tree`.

    folder: dotted name of the file's folder, from which relative imports are resolved.
    """
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
    defined = {
        node.name for node in module.tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))
    }
    return module.is_package and defined <= {"__getattr__", "__dir__"}


def exported_names(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """Yield (public name, module that defines it) of an `__init__.py`.

    They are taken from its imports, its lazy tables and its stub file.
    """
    trees = [module.tree]
    stub = module.path.with_suffix(".pyi")
    if stub.exists():
        trees.append(ast.parse(stub.read_text()))

    for tree in trees:
        for item in imports_of(tree, module.folder):
            if item.name is not None and item.module in modules:
                yield item.name, item.module

    # A lazy table is a dict of text at module level: name -> module, absolute or relative.
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
    """Find strongly connected groups of two and more nodes, sorted (Tarjan 1972)."""
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
