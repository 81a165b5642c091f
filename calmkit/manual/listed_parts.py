"""Lists of the parts that a config may name, and of the arguments of one."""

import ast
from collections.abc import Mapping, Sequence

from .pages import page, two_columns
from .source_text import Definition, bases_of, find, members_of, names_handed_on
from .stated_options import Option

__all__ = ["arguments_page", "part_classes", "parts_page"]


def part_classes(base: Definition) -> dict[str, Definition]:
    """The concrete classes of a kind that its package hands on, by name in alphabetical order.

    Args:
        base: An abstract class or a protocol, or a concrete class, which is then among them.
    """
    package = base.module.rpartition(".")[0] or base.module
    found = {name: find(package, name) for name in names_handed_on(package)}
    return {
        name: one
        for name, one in sorted(found.items())
        if one is not None and _is_concrete(one) and _is_a(one, base)
    }


def parts_page(key: str, lines: Mapping[str, str], *, command: str, current: str = "") -> str:
    """The parts that a key may name, each with a line of description.

    Args:
        key: The dotted key.
        lines: The first line of each part's docstring, by name.
        command: The command as typed.
        current: The class that the key names without this option.
    """
    entries = [
        (f"{name} (default)" if name == current else name, text) for name, text in lines.items()
    ]
    title = f"classes of {key}, or a class of yours by its dotted path:"
    return (
        f"usage: {command} --{key} CLASS [--{key}.KEY VALUE ...]\n\n"
        f"{two_columns(entries, title=title)}\n"
        f"--{key}.help CLASS lists the arguments of a class.\n"
    )


def arguments_page(
    key: str, name: str, options: Sequence[Option], *, command: str, defaults: str = ""
) -> str:
    """The arguments of one part.

    Args:
        key: The dotted key.
        name: The name of the class.
        options: Its arguments.
        command: The command as typed.
        defaults: Where the defaults come from, for the title.
    """
    listed = page(options, prefix=f"{key}.") if options else "  none\n"
    usage = f"usage: {command} --{key} {name} [--{key}.KEY VALUE ...]"
    return f"{usage}\n\narguments of {name}{defaults}:\n{listed}"


def _is_a(found: Definition, base: Definition) -> bool:
    """Whether a class is below a base, or has the methods of a protocol."""
    if not _is_protocol(base):
        return base in bases_of(found)
    own, wanted = members_of(found), members_of(base)
    names = [name for name in wanted if name == "__call__" or not name.startswith("_")]
    return all(_names(own.get(name))[: len(_names(wanted[name]))] == _names(wanted[name])
               for name in names)  # fmt: skip


def _is_concrete(found: Definition) -> bool:
    if not isinstance(found.node, ast.ClassDef) or _is_protocol(found):
        return False
    return not any(
        "abstractmethod" in ast.unparse(decorator)
        for node in members_of(found).values()
        for decorator in getattr(node, "decorator_list", ())
    )


def _is_protocol(found: Definition) -> bool:
    return any("Protocol" in ast.unparse(base) for base in getattr(found.node, "bases", ()))


def _names(member: ast.stmt | None) -> list[str]:
    return [one.arg for one in member.args.args] if isinstance(member, ast.FunctionDef) else []
