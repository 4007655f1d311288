"""The part of this package that a script loads, found by following imports; no list of modules is kept by hand.

Followed are the imports that run when a module is loaded. Those inside functions are not: they serve what training does
not do, such as reading a Keras file.
"""

import ast
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "gansmith"


def package_files(script: str) -> dict[str, bytes]:
    """Return the source of every module of this package that a script loads, by its path, such as gansmith/config.py.

    Args:
        script: its source.
    """
    found: dict[str, bytes] = {}
    waiting = list(_imported(ast.parse(script)))
    while waiting:
        module = waiting.pop()
        path, file = _find(module)
        if file is None or path in found:
            continue
        found[path] = file.read_bytes()
        waiting += _imported(ast.parse(found[path]))
        if "." in module:
            waiting.append(module.rpartition(".")[0])  # loading a module loads the packages that hold it
    return dict(sorted(found.items()))


def _find(module: str) -> tuple[str, Traversable | None]:
    """Return a module's path from the folder that holds this package, and its file; None for any other name."""
    package, *parts = module.split(".")
    if package != PACKAGE:
        return module, None
    stem = module.replace(".", "/")
    for path in (f"{stem}/__init__.py", f"{stem}.py"):
        file = resources.files(PACKAGE).joinpath(*path.split("/")[1:])
        if file.is_file():
            return path, file
    return stem, None


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the full name of everything imported below a node, functions and what is for type checkers left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)  # each may be a module, too
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_for_types(child):
            yield from _imported(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
