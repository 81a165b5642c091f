"""The digest and the imports of a module, read from its file without running it."""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from calmkit.files import file_digest

__all__ = ["Import", "Module", "is_own", "read_module", "targets"]

_CALMKIT = "calmkit"
_INSTALLED = {"site-packages", "dist-packages"}
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


@dataclass(frozen=True)
class Import:
    """One name in an import statement.

    Attributes:
        module: The module.
        name: The imported name; "*" for all names, empty for the module itself.
        inside: The class of calmkit that contains the statement, if any.
    """

    module: str
    name: str = ""
    inside: str = ""


@dataclass(frozen=True)
class Module:
    """A module of own code.

    Attributes:
        digest: Digest without comments and docstrings; empty for a module without a file.
        imports: All its imports, including those inside functions.
        handed_on: Origins of the names that it imports with `from`.
    """

    digest: str = ""
    imports: tuple[Import, ...] = ()
    handed_on: Mapping[str, Import] = field(default_factory=dict)


@functools.cache
def is_own(name: str) -> bool:
    """Whether a module belongs to calmkit or lies outside the folders of installed packages."""
    top = name.partition(".")[0]
    if top == _CALMKIT:
        return True
    spec = None if top in sys.stdlib_module_names else _spec(top)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return bool(places) and not any(_INSTALLED & set(Path(str(p)).parts) for p in places)


@functools.cache
def read_module(name: str) -> Module:
    """Read a module of own code, once per process, as Python imports it once."""
    spec = _spec(name)
    if spec is None or spec.origin is None or not spec.has_location:
        return Module()
    path = Path(spec.origin)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    try:
        return _parsed(path.read_bytes(), package, is_calmkit=name.partition(".")[0] == _CALMKIT)
    except (OSError, SyntaxError, ValueError):
        return Module(file_digest(path) if path.is_file() else "")


def _parsed(source: bytes, package: str, *, is_calmkit: bool) -> Module:
    """What a module of that source in that package is.

    Raises:
        SyntaxError: If it is not Python.
        ValueError: If it contains a NUL.
    """
    tree = ast.parse(source)
    imports = tuple(_imports(tree, package, "", within_classes=is_calmkit))
    handed_on = {
        alias.asname or alias.name: Import(_absolute(node, package), alias.name)
        for node in _statements(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    tree_text = ast.dump(_without_docstrings(tree))
    return Module(hashlib.sha256(tree_text.encode()).hexdigest()[:32], imports, handed_on)


@functools.cache
def targets(wanted: Import) -> tuple[str, ...]:
    """The modules of own code that an import executes and that count.

    The packages of calmkit only re-export names, so only the module that defines the name counts.
    For other code, the package and its parent packages count as well.
    """
    module, name = wanted.module, wanted.name
    if module.partition(".")[0] == _CALMKIT:
        if name and name != "*" and _is_package(module):
            handed_on = read_module(module).handed_on.get(name)
            if handed_on is not None:
                return targets(handed_on)
            if _spec(f"{module}.{name}") is not None:
                return (f"{module}.{name}",)
        return (module,)
    steps = module.split(".")
    found = [".".join(steps[: length + 1]) for length in range(len(steps))]
    if name and name != "*" and _is_package(module) and _spec(f"{module}.{name}") is not None:
        found.append(f"{module}.{name}")
    return tuple(found)


def _imports(
    node: ast.AST, package: str, inside: str, *, within_classes: bool
) -> Iterator[Import]:
    """Every import below a node, except those under `TYPE_CHECKING`."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for other in node.orelse:
            yield from _imports(other, package, inside, within_classes=within_classes)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, "", inside)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield Import(_absolute(node, package), alias.name, inside)
    elif isinstance(node, ast.ClassDef) and within_classes:
        inside = node.name
    for child in _parts(node):
        yield from _imports(child, package, inside, within_classes=within_classes)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """A tree and all statements in it, the outer ones first."""
    left = deque([tree])
    while left:
        node = left.popleft()
        yield node
        left.extend(_parts(node))


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in one, with the clauses that hold others."""
    return (one for name in _BLOCKS for one in getattr(node, name, ()))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _without_docstrings(tree: ast.AST) -> ast.AST:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in _statements(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _is_package(name: str) -> bool:
    spec = _spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def _spec(name: str) -> ModuleSpec | None:
    """The spec of a module; unlike `importlib.util.find_spec`, this imports no parent package."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded
    parent = name.rpartition(".")[0]
    places = None
    if parent:
        around = _spec(parent)
        if around is None or around.submodule_search_locations is None:
            return None
        places = list(around.submodule_search_locations)
    for finder in sys.meta_path:
        found = finder.find_spec(name, places)
        if found is not None:
            return found
    return None
