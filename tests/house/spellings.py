"""Tell-tales of plumbing that should have one home.

Each function says whether a parsed file spells out the plumbing itself.
"""

import ast
from collections.abc import Iterator

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def moves_a_draft(tree: ast.AST) -> bool:
    """Find `os.replace(a, b)`, `os.rename(a, b)`, `path.replace(b)` and `path.rename(b)`."""
    for call in _method_calls(tree):
        if call.func.attr not in ("replace", "rename") or call.keywords:
            continue
        is_os = isinstance(call.func.value, ast.Name) and call.func.value.id == "os"
        # Text has a method `replace` too, which takes two arguments.
        if is_os or len(call.args) == 1:
            return True
    return False


def asks_for_ranks(tree: ast.AST) -> bool:
    """Find questions to torch.distributed or the environment for rank or number of processes."""
    names = ("get_rank", "get_world_size")
    calls = any(call.func.attr in names for call in _method_calls(tree))

    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return calls or any(isinstance(value, str) and value in RANK_VARIABLES for value in constants)


def boxes_a_mask(tree: ast.AST) -> bool:
    """Find functions that reduce with `any` along two axes, as a box around pixels is found."""
    for function in ast.walk(tree):
        if isinstance(function, FUNCTIONS):
            axes = [_axis(call) for call in _method_calls(function) if call.func.attr == "any"]
            axes = [axis for axis in axes if axis is not None]

            # An axis that is no number is the variable of a loop over both.
            is_loop = any(
                not isinstance(axis, ast.Constant) and not _is_negative(axis) for axis in axes
            )
            if is_loop or len({ast.dump(axis) for axis in axes}) > 1:
                return True
    return False


def starts_loading_workers(tree: ast.AST) -> bool:
    """Find `DataLoader(...)`: where its workers fail, it waits for ever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name == "DataLoader":
                return True
    return False


def _method_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node


def _axis(call: ast.Call) -> ast.expr | None:
    """Return the axis that a reduction is given, or None."""
    for keyword in call.keywords:
        if keyword.arg in ("axis", "dim"):
            return keyword.value
    return call.args[0] if call.args else None


def _is_negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)


TELL_TALES = {
    "rename a draft": moves_a_draft,
    "ask for rank or world size": asks_for_ranks,
    "make the box of a mask": boxes_a_mask,
    "load items in worker processes": starts_loading_workers,
}
