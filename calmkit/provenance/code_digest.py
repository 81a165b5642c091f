"""Which code decides numbers, and whether it is still the same.

    {"my_heads": "5f0c...", "calmkit.heads.base": "91ab...", "torch": "version 2.13.0 77e1..."}

Beginning with the classes that a config names, every import statement is followed, inside
functions too. Code of one's own, which is calmkit's and all that stands outside the folders of
installed packages, is known by what it says. Comments and docstrings do not count: a better
sentence costs no training. A module without source is known by its file. An installed package is
known by its version and the checksums that came with it, so that one which was built again under
its old version is another one.

What no import statement names is not seen: modules that are imported by a computed name, files
that code reads, an installed package that is edited in its place.
"""

import functools
import hashlib
import importlib.metadata
import inspect
import platform
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

import torch

from .imports import Import, is_own, read_module, targets

__all__ = ["code_changes", "code_of", "named_in"]

# They check, show and store numbers, and make none.
_NO_NUMBERS = {
    "beartype",
    "cattrs",
    "jaxtyping",
    "jsonargparse",
    "matplotlib",
    "rich",
    "safetensors",
    "yaml",
}
_ONLY_ON_GPU = {"xformers"}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_CHECKSUM = re.compile(r"^.*\.(?:py|so|pyd|dll|dylib),sha256=.*$", re.MULTILINE)
_VERSION = "version "


def code_of(
    entries: Iterable[str],
    *,
    named: Iterable[type | FunctionType] = (),
    alone: Iterable[str] = (),
    without: Collection[str] = (),
) -> dict[str, str]:
    """Digests of all modules that are reached, and versions of the libraries that they use.

    Args:
        entries: Modules to begin with.
        named: Classes, with all that they inherit from, and functions to begin with as well.
        alone: Modules that count, but not what they import.
        without: Modules and packages that are not entered on the way.
    """
    kinds = [kind for one in named for kind in getattr(one, "__mro__", (one,))]
    used = {kind.__name__ for kind in kinds}
    left = [*entries, *(kind.__module__ for kind in kinds)]
    left = [module for name in left for module in _with_packages(name)]
    found = {name: read_module(name).digest for name in alone}
    seen, foreign = set(found), set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if not is_own(name):
            foreign.add(Import(name))
            continue
        module = read_module(name)
        found[name] = module.digest
        for wanted in module.imports:
            used.add(wanted.name)
            if not is_own(wanted.module):
                foreign.add(wanted)
                continue
            left += [there for there in targets(wanted) if not _is_below(there, without)]
    libraries = {
        wanted.module.partition(".")[0]
        for wanted in foreign
        # What calmkit imports inside a class counts where that class is used.
        if not wanted.inside or wanted.inside in used
    }
    found |= {name: _version(name) for name in libraries if _makes_numbers(name)}
    found["python"] = _VERSION + ".".join(platform.python_version_tuple()[:2])
    return dict(sorted((name, digest) for name, digest in found.items() if digest))


def named_in(config: object) -> list[type | FunctionType]:
    """The classes and functions that a parsed config names, at any depth.

    Args:
        config: Mappings, lists and values. Whatever it names has been imported.
    """
    found = (_loaded(path) for path in sorted(set(_texts(config))) if _DOTTED.fullmatch(path))
    return [one for one in found if inspect.isclass(one) or inspect.isfunction(one)]


def code_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two answers of `code_of`, in words; one's own code first."""
    changed: list[str] = []
    versions: list[str] = []
    for name in sorted({*before, *now}):
        was, found = before.get(name, ""), now.get(name, "")
        if was == found:
            continue
        if not (was and found):
            changed.append(f"{name} is used {'no longer' if was else 'now'}")
        elif not found.startswith(_VERSION):
            changed.append(f"{name} has changed")
        elif (old := was.split()[1]) != (new := found.split()[1]):
            versions.append(f"{name} was {old} and is {new}")
        else:
            versions.append(f"{name} {new} was installed anew")
    return changed + versions


def _with_packages(name: str) -> tuple[str, ...]:
    return targets(Import(name)) if is_own(name) else (name,)


def _is_below(name: str, packages: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)


def _loaded(path: str) -> object:
    """What a dotted path means among the modules that are loaded; None if nothing."""
    steps = path.split(".")
    for length in range(len(steps) - 1, 0, -1):
        found: object = sys.modules.get(".".join(steps[:length]))
        if found is not None:
            for step in steps[length:]:
                found = getattr(found, step, None)
            return found
    return None


def _makes_numbers(library: str) -> bool:
    if library in sys.stdlib_module_names or library in _NO_NUMBERS:
        return False
    return library not in _ONLY_ON_GPU or torch.cuda.is_available()


@functools.cache
def _version(library: str) -> str:
    """Version of a library and a digest of the checksums of its files; empty if it is missing."""
    found = []
    for name in sorted(set(_distributions().get(library, ()))):
        installed = importlib.metadata.distribution(name)
        record = _CHECKSUM.findall(installed.read_text("RECORD") or "")
        digest = hashlib.sha256("\n".join(sorted(record)).encode()).hexdigest()[:16]
        found.append(f"{installed.version} {digest}")
    return _VERSION + " ".join(found) if found else ""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
