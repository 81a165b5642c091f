"""Modules of one's own, written and changed by tests."""

import functools
import importlib
import sys

from calmkit.provenance import code_digest, imports
from calmkit.provenance.code_digest import code_of

# Every file is read again where `forget` says so; the same text is parsed once, which takes long.
imports._parsed = functools.cache(imports._parsed)


def forget(*, installed=False):
    """As a new process begins: every module is read and imported again.

    Args:
        installed: Whether the installed packages are looked up again, too, which takes long.
    """
    for cached in (imports.read_module, imports.is_own, imports.targets, imports._spec):
        cached.cache_clear()
    if installed:
        code_digest._version.cache_clear()
        code_digest._distributions.cache_clear()
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


class Files:
    """A folder of modules on the path, and the code that is reached from one of them."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = 0

    def write(self, **modules):
        for name, text in modules.items():
            path = self.folder / f"{name.replace('__', '/')}.py"
            if path.name == "init.py":
                path = path.with_name("__init__.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def code(self, entry="mine", *, installed=False):
        forget(installed=installed)
        return code_of([entry])

    def reached(self, entry="mine"):
        return {name for name in self.code(entry) if name not in ("python", "torch")}
