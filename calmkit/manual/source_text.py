"""Definitions in source files: a class, a function or a constant, found by module and name.

A name that a file imports from another one is followed there, so a class is found by the package
that hands it on: `find("calmkit.heads", "FlowHead")`.
"""

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import calmkit

__all__ = [
    "Definition",
    "bases_of",
    "find",
    "members_of",
    "modules_defining",
    "names_handed_on",
    "one_line",
]

_ROOT = Path(calmkit.__file__).parent
# A folder of one's own has few files, and a part's is short; others are not worth the time.
_MOST_FILES, _MOST_BYTES = 200, 1_000_000


@dataclass(frozen=True)
class Definition:
    """A definition at the top level of a module.

    Attributes:
        module: The module that defines it.
        name: Its name there.
        node: The class or function, or the value of a constant.
    """

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef | ast.expr


def find(module: str, name: str) -> Definition | None:
    """The definition of a name in a module of calmkit, or in one that is imported already.

    Args:
        module: The module that defines the name, or imports it.
        name: The name.

    Returns:
        None if there is no such name, or its file cannot be read.
    """
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(module, name, node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                return Definition(module, name, node.value)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find(_imported_module(node, module), alias.name)
    return None


def modules_defining(name: str, folder: Path) -> list[str]:
    """The modules of a folder that define a class or function of that name; none is imported.

    Args:
        name: The name.
        folder: The folder, without those inside it.
    """
    files = sorted(path for path in folder.glob("*.py") if path.stem.isidentifier())
    return [
        path.stem
        for path in files[:_MOST_FILES]
        if path.is_file() and path.stat().st_size <= _MOST_BYTES
        for node in _parsed(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    ]


def names_handed_on(package: str) -> list[str]:
    """Names that a package imports, in order."""
    imports = [node for node in _tree(package).body if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def bases_of(found: Definition) -> Iterator[Definition]:
    """A class and the classes above it whose source is known, the nearest first."""
    yield found
    if not isinstance(found.node, ast.ClassDef):
        return
    for base in found.node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(named, ast.Name) and (above := find(found.module, named.id)) is not None:
            yield from bases_of(above)


def members_of(found: Definition) -> dict[str, ast.stmt]:
    """The methods and attributes of a class and of its bases, each as the class itself has it."""
    members: dict[str, ast.stmt] = {}
    for one in bases_of(found):
        for node in getattr(one.node, "body", ()):
            if isinstance(node, ast.FunctionDef):
                members.setdefault(node.name, node)
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                members |= {name: node for name in names if name not in members}
    return members


def one_line(found: Definition) -> str:
    """The first line of a docstring."""
    if not isinstance(found.node, ast.ClassDef | ast.FunctionDef):
        return ""
    return (ast.get_docstring(found.node) or "").partition("\n")[0]


def _imported_module(node: ast.ImportFrom, module: str) -> str:
    is_package = _file(module).name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _tree(module: str) -> ast.Module:
    """The parsed file of a module; an empty one if there is none, or it is not imported yet."""
    path = _file(module)
    return _parsed(path) if path.is_file() else ast.Module([], [])


@functools.cache
def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _file(module: str) -> Path:
    top, *rest = module.split(".")
    if top == "calmkit":
        path = _ROOT.joinpath(*rest)
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return Path(getattr(sys.modules.get(module), "__file__", None) or "not imported")
