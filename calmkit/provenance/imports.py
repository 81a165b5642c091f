"""What a module says and what it imports, read from its file without running it."""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from calmkit.files import file_digest

__all__ = ["Import", "Module", "is_own", "read_module", "targets"]

_OURS = "calmkit"
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Import:
    """One thing that an import statement asks for.

    Attributes:
        module: The module.
        name: What is taken from it; "*" for everything, empty for the module itself.
        inside: The class in which the statement stands, where that is one of calmkit's.
    """

    module: str
    name: str = ""
    inside: str = ""


@dataclass(frozen=True)
class Module:
    """A module of one's own.

    Attributes:
        digest: Of what it says, comments and docstrings aside; empty where there is nothing.
        imports: What it imports, inside functions too.
        handed_on: Where the names come from that it imports at its top.
    """

    digest: str = ""
    imports: tuple[Import, ...] = ()
    handed_on: Mapping[str, Import] = field(default_factory=dict)


@functools.cache
def is_own(name: str) -> bool:
    """Whether a module is calmkit's or stands outside the folders of installed packages."""
    top = name.partition(".")[0]
    if top == _OURS:
        return True
    spec = None if top in sys.stdlib_module_names else _spec(top)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return bool(places) and not any(_INSTALLED & set(Path(str(p)).parts) for p in places)


@functools.cache
def read_module(name: str) -> Module:
    """Read one's own module; once in a process, as the process itself imports it once."""
    spec = _spec(name)
    if spec is None or spec.origin is None or not spec.has_location:
        return Module()
    path = Path(spec.origin)
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return Module(file_digest(path) if path.is_file() else "")
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    ours = name.partition(".")[0] == _OURS
    imports = tuple(_imports(tree, package, "", within_classes=ours))
    handed_on = {
        alias.asname or alias.name: Import(_absolute(node, package), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    said = ast.dump(_without_docstrings(tree))
    return Module(hashlib.sha256(said.encode()).hexdigest()[:32], imports, handed_on)


@functools.cache
def targets(wanted: Import) -> tuple[str, ...]:
    """One's own modules that an import makes part of the program.

    A package of calmkit hands on names and does nothing else, so that only the module of the name
    counts. Elsewhere a package counts itself, and so do the packages around it.
    """
    module, name = wanted.module, wanted.name
    if module.partition(".")[0] == _OURS:
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
    """Every import statement below a node, but those for type checkers alone."""
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
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, package, inside, within_classes=within_classes)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _without_docstrings(tree: ast.AST) -> ast.AST:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _is_package(name: str) -> bool:
    spec = _spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def _spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from; unlike `find_spec` it imports no package for it."""
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
