"""Options as a constructor or a function states them: name, type, default and docstring."""

import ast
import inspect
import re
from dataclasses import dataclass, replace

from .source_text import Definition, bases_of, find

__all__ = ["Option", "description_of", "number_bound", "options_of", "part_of_hint"]

_KINDS = {
    "int": "INT", "float": "NUMBER", "str": "TEXT", "Path": "PATH", "bool": "{true,false}",
    "list": "LIST", "tuple": "LIST", "Sequence": "LIST", "Iterable": "LIST", "dict": "MAPPING",
    "Mapping": "MAPPING", "Callable": "CLASS", "Any": "VALUE",
}  # fmt: skip
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): ", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Its name.
        kind: Its type in words; a choice as `{a,b}`.
        default: Its default in words; None if it is required.
        text: Its description.
        hint: Its annotation.
        module: The module of the annotation.
    """

    name: str
    kind: str
    default: str | None
    text: str
    hint: ast.expr | None = None
    module: str = ""

    @property
    def choices(self) -> list[str]:
        """The allowed values, if they are listed."""
        inside = re.search(r"\{([^}]*)\}", self.kind)
        return inside[1].split(",") if inside else []


def options_of(found: Definition) -> list[Option]:
    """The arguments of a function or of a class's constructor, or the fields of a dataclass."""
    if isinstance(found.node, ast.FunctionDef):
        return _arguments(found.node, found.module, ast.get_docstring(found.node) or "")
    options: dict[str, Option] = {}
    texts: dict[str, str] = {}
    has_constructor = False
    for one in bases_of(found):
        if not isinstance(one.node, ast.ClassDef):
            continue
        text = ast.get_docstring(one.node) or ""
        texts = _entries(text) | texts  # a class may describe the fields of its base
        functions = [node for node in one.node.body if isinstance(node, ast.FunctionDef)]
        made = next((node for node in functions if node.name == "__init__"), None)
        if made is not None:
            own = _arguments(made, one.module, ast.get_docstring(made) or "")
            for option in own:
                options.setdefault(option.name, option)
            has_constructor = True
            if made.args.kwarg is None:
                break
        elif _is_dataclass(one.node):
            fields = {option.name: option for option in _fields(one, text)}
            # The fields of a base come first, unless a constructor above hands them on.
            options = options | fields | options if has_constructor else fields | options
    return [
        option if option.text else replace(option, text=texts.get(option.name, ""))
        for option in options.values()
    ]


def description_of(found: Definition) -> str:
    """The docstring without its sections."""
    if not isinstance(found.node, ast.ClassDef | ast.FunctionDef):
        return ""
    return _SECTION.split(ast.get_docstring(found.node) or "")[0].strip()


def part_of_hint(hint: ast.expr | None, module: str, *, group: bool = False) -> Definition | None:
    """The class of calmkit that an annotation names, also as the result of a factory.

    Args:
        hint: The annotation.
        module: Its module.
        group: Whether a dataclass is wanted, whose fields are keys, rather than a part.
    """
    if isinstance(hint, ast.BinOp):
        left = part_of_hint(hint.left, module, group=group)
        return left or part_of_hint(hint.right, module, group=group)
    if isinstance(hint, ast.Subscript):
        if not (ast.unparse(hint.value) == "Callable" and isinstance(hint.slice, ast.Tuple)):
            return None
        return part_of_hint(hint.slice.elts[-1], module, group=group)
    found = find(module, hint.id) if isinstance(hint, ast.Name) else None
    if found is None or not found.module.startswith("calmkit."):
        return None
    is_class = isinstance(found.node, ast.ClassDef) and _is_dataclass(found.node) == group
    return found if is_class else None


def number_bound(hint: ast.expr | None) -> int:
    """The number of arguments of a factory: 2 for `Callable[[int, int], Head]`."""
    if isinstance(hint, ast.Subscript) and isinstance(hint.slice, ast.Tuple):
        first = hint.slice.elts[0]
        return len(first.elts) if isinstance(first, ast.List) else 0
    return 0


def _arguments(node: ast.FunctionDef, module: str, docstring: str) -> list[Option]:
    texts = _entries(docstring)
    plain = [*node.args.posonlyargs, *node.args.args]
    free: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [*zip(plain, [*free, *node.args.defaults], strict=True)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return [
        _option(argument.arg, argument.annotation, default, texts.get(argument.arg, ""), module)
        for argument, default in pairs
        if argument.arg != "self"
    ]


def _fields(found: Definition, docstring: str) -> list[Option]:
    texts = _entries(docstring)
    return [
        _option(node.target.id, node.annotation, node.value, texts.get(node.target.id, ""),
                found.module)
        for node in getattr(found.node, "body", ())
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]  # fmt: skip


def _option(
    name: str, hint: ast.expr | None, default: ast.expr | None, text: str, module: str
) -> Option:
    shown = None if default is None else _shown(default, module)
    return Option(name, _kind(hint, module), shown, text, hint, module)


def _entries(docstring: str) -> dict[str, str]:
    """The entries of the sections `Args` and `Attributes`, each on one line."""
    pieces = _SECTION.split(inspect.cleandoc(docstring))
    entries = {}
    for title, section in zip(pieces[1::2], pieces[2::2], strict=True):
        if title in ("Args", "Attributes"):
            parts = _ENTRY.split(section)
            entries |= {
                name: " ".join(text.split())
                for name, text in zip(parts[1::2], parts[2::2], strict=True)
            }
    return entries


def _kind(hint: ast.expr | None, module: str) -> str:
    """An annotation in words; null is left out, since the default shows it."""
    if hint is None:
        return "VALUE"
    if isinstance(hint, ast.BinOp):
        kinds = (_kind(hint.left, module), _kind(hint.right, module))
        return "|".join(dict.fromkeys(kind for kind in kinds if kind))
    if isinstance(hint, ast.Constant):
        return "" if hint.value is None else "VALUE"
    if isinstance(hint, ast.Subscript):
        if ast.unparse(hint.value) == "Literal":
            inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
            return "{" + ",".join(str(ast.literal_eval(one)) for one in inner) + "}"
        return _kind(hint.value, module)
    if isinstance(hint, ast.Name) and hint.id not in _KINDS:
        found = find(module, hint.id)
        if found is None or not isinstance(found.node, ast.expr):
            return "CLASS"
        return _kind(found.node, found.module)  # an alias
    return _KINDS.get(ast.unparse(hint), "CLASS")


def _shown(default: ast.expr, module: str) -> str:
    """A default as an option would give it."""
    if isinstance(default, ast.Name) and (found := find(module, default.id)) is not None:
        if isinstance(found.node, ast.expr):
            return _shown(found.node, found.module)
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "Path" and default.args:
        return _shown(default.args[0], module)
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
        return "see below"
    if isinstance(default, ast.Constant):
        if default.value is None or isinstance(default.value, bool):
            return {None: "null", True: "true", False: "false"}[default.value]
        return str(default.value) or "empty"
    if isinstance(default, ast.BinOp) and isinstance(default.op, ast.Pow):
        return str(ast.literal_eval(default.left) ** ast.literal_eval(default.right))
    return ast.unparse(default)


def _is_dataclass(node: ast.AST) -> bool:
    return any("dataclass" in ast.unparse(one) for one in getattr(node, "decorator_list", ()))
