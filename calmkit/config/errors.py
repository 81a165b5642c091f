"""One-screen messages for mistakes in a config: the key, what is allowed, the nearest name.

jsonargparse finds every mistake but reports it in its own terms, for instance

    Parser key "head": Type Callable[[int, int], Head] expects a function or a callable class:
    Option 'widht' is not accepted. Got value: Namespace(class_path='EnergyHead', ...)

`explain` recognises what it says and tells it in the user's: the key as written and where, the
keys or classes that would be right, and the nearest of them. What it does not recognise is
handed on shortened, so that a new version of jsonargparse costs clarity but never the message.
"""

import difflib
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["ConfigError", "Source", "explain"]


class ConfigError(ValueError):
    """A mistake in a config or on the command line; nothing has been computed.

    Attributes:
        allowed: What would be right, if that can be listed.
    """

    def __init__(self, text: str, *, wrong: str = "", allowed: Iterable[str] = ()) -> None:
        """Compose the message.

        Args:
            text: What is wrong.
            wrong: The misspelt name, to be compared with `allowed`.
            allowed: What would be right.
        """
        self.allowed = tuple(allowed)
        lines = [text]
        by_lower_case = {name.lower(): name for name in self.allowed}
        for nearest in difflib.get_close_matches(wrong.lower(), by_lower_case, n=1, cutoff=0.5):
            lines.append(f"  did you mean: {by_lower_case[nearest]}")
        if self.allowed:
            listed = textwrap.fill(
                ", ".join(self.allowed), 88, break_long_words=False, break_on_hyphens=False
            )
            lines.append("  allowed: " + listed.replace("\n", "\n           "))
        super().__init__("\n".join(lines))

    def at(self, where: str) -> "ConfigError":
        """The same mistake, with where it was made in front."""
        error = ConfigError(f"{where}: {self}")
        error.allowed = self.allowed
        return error


@dataclass(frozen=True)
class Source:
    """Where values came from, to point at the wrong one.

    Attributes:
        name: What to call it: a file, or the command line.
        values: The values, nested as in the file.
    """

    name: str
    values: Mapping[str, Any]

    @staticmethod
    def of_options(options: Sequence[str]) -> "Source":
        """The command line: `--key value` and `--key=value`."""
        values = {}
        for option, following in itertools.pairwise([*options, ""]):
            if option.startswith("--"):
                key, equals, value = option.partition("=")
                values[key.removeprefix("--")] = value if equals else following
        return Source("command line", values)

    @staticmethod
    def of_file(path: Path, name: str | None = None) -> "Source":
        """A YAML file.

        Args:
            path: The file.
            name: What to call it; its path if None.

        Raises:
            ConfigError: If it cannot be read, is not YAML, or holds no mapping.
        """
        import yaml

        try:
            values = _read_yaml(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"config {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigError(f"config {path} must be UTF-8 text; it is not.") from None
        except yaml.YAMLError as error:
            said = textwrap.indent(str(error).replace('"<unicode string>", ', ""), "  ")
            raise ConfigError(f"config {path} is not valid YAML:\n{said}") from None
        if not isinstance(values, Mapping):
            found = "nothing" if values is None else f"a {type(values).__name__}"
            raise ConfigError(f"config {path} must hold keys and values; it holds {found}.")
        return Source(name or str(path), values)


def _read_yaml(text: str) -> object:
    """As `yaml.safe_load`, but a key that is given twice is an error and not the last one's."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    mark = node.value[place][0].start_mark
                    raise yaml.YAMLError(
                        f"line {mark.line + 1}: {key!r} is given twice; rename or remove one."
                    )
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)


def explain(text: str, kind: type, sources: Sequence[Source]) -> ConfigError:
    """Translate an error of jsonargparse.

    Args:
        text: Its message.
        kind: The dataclass that was to be filled.
        sources: Where values came from, the one with the last word first.
    """
    field = _first(r'Parser key "(\w+)', text)
    if owner := _first(r"given class_path '([^']+)':\s+Option '[^']+' is not accepted", text):
        wrong = _first(r"Option '([^']+)' is not accepted", text)
        return _unknown_argument(wrong, owner, kind, field, sources)
    if field and (wrong := _first(r"Option '([^']+)' is not accepted", text)):
        return _unknown_argument(
            wrong, _first(r"class_path='([^']+)'", text), kind, field, sources
        )
    if field and "Dict must include a class_path" in text:
        return _unknown_entry("", kind, field, sources)
    if wrong := _first(r"unrecognized arguments: (\S+)", text):
        if not wrong.startswith("-"):
            return ConfigError(f"{wrong}: expected an option of the form --key value.")
        return _unknown_key(wrong.partition("=")[0].lstrip("-"), kind, sources)
    if found := re.search(r"Group '(\w+)' does not accept option '([^']+)'", text):
        return _unknown_key(f"{found[1]}.{found[2]}", kind, sources)
    if wrong := _first(r"Option '([^']+)' is not accepted", text):
        return _unknown_key(wrong, kind, sources)
    if wrong := _first(r"Expected a dot import path string: (\S+)", text):
        base = _wanted(text, kind, field)
        return _unknown_class(wrong, base, field, sources, "is not a known class")
    if found := re.search(r"Expected '([^']+)' to be a subclass of <class '([^']+)'", text):
        said = f"is not a subclass of {found[2]}"
        return _unknown_class(found[1], _wanted(text, kind, field), field, sources, said)
    if said := _first(r"(No module named '[^']+'|module '[^']+' has no attribute '\w+')", text):
        path = _first(r"Got value: ([\w.]+)", text)
        base = _wanted(text, kind, field)
        return _unknown_class(path, base, field, sources, f"cannot be imported: {said}")
    if found := re.search(r"arguments are required: ([\w., ]+)", text):
        owner = _first(r"given class_path '[\w.]*?(\w+)':\s+the following arguments", text)
        of = f" of {owner} ({field})" if owner else ""
        return ConfigError(f"missing: {found[1]}{of}. Give it in a config file or as an option.")
    if option := _first(r"argument (--\S+): expected one argument", text):
        return ConfigError(f"{option} must be followed by a value; got none.")
    if said := _first(r"  - (?!Expected|Problem|Parser)([^\n]+)", text):
        owner = _first(r"class_path='([^']+)'", text)
        key, _ = _locate(sources, lambda _, value: bool(owner) and value == owner, field)
        return ConfigError(f"{key.removesuffix('.class_path')}: {said}")
    if "Unable to load config" in text:
        return ConfigError(f"{field} must be keys and values; set one as --{field}.KEY VALUE.")
    if found := re.search(r"- (Expected [^\n]+)\n", text):
        return _wrong_value(found[1], _first(r"Given value: ([^\n]*)", text), text, field, sources)
    if found := re.findall(r"(Expected [^\n]+?)\. Got value: ([^\n]*?)(?:\. Got|$)", text, re.M):
        expected, value = found[-1]
        return _wrong_value(expected, value, text, field, sources)
    return ConfigError(re.split(r"\.? Got value: |\n  Given value", text.strip())[0])


def _unknown_argument(
    name: str, class_path: str, kind: type, field: str, sources: Sequence[Source]
) -> ConfigError:
    """An argument that a part's class does not take."""
    owner, base = _import(class_path), _base(kind, field)
    key, place = _locate(
        sources, lambda path, _: _under(path, field) and path.endswith(name), field
    )
    if owner is None or owner is base.cls or "." in name:
        return _unknown_entry(name, kind, field, sources)
    bound = base.bound if base.cls and issubclass(owner, base.cls) else 0
    parameters = list(inspect.signature(owner).parameters)
    if name in parameters[:bound]:
        return ConfigError(
            f"{key} cannot be set{place}: {owner.__name__} receives its {name} from the sizes "
            "at the top of the config."
        )
    return ConfigError(
        f"{key}: {owner.__name__} has no argument {name!r}{place}.",
        wrong=name,
        allowed=parameters[bound:],
    )


def _unknown_entry(name: str, kind: type, field: str, sources: Sequence[Source]) -> ConfigError:
    """An option of a list entry that does not exist, or a part without its `class_path`."""
    known = next((s.values[field] for s in sources if field in s.values), None)
    if isinstance(known, Mapping) and get_origin(get_type_hints(kind).get(field)) is dict:
        entries = [str(entry) for entry in known]
        key, place = _locate(
            sources,
            lambda path, _: path.startswith(f"{field}.") and path.split(".")[1] not in entries,
            "",
        )
        if key:
            wrong = key.split(".")[1]
            return ConfigError(
                f"{key}: {field} has no entry {wrong!r}{place}.", wrong=wrong, allowed=entries
            )
    key, place = _locate(
        sources, lambda path, _: _under(path, field) and path.endswith(name), field
    )
    return ConfigError(
        f"{key} is not a key of a part{place}.",
        wrong=name.partition(".")[0],
        allowed=("class_path", "init_args"),
    )


def _unknown_key(name: str, kind: type, sources: Sequence[Source]) -> ConfigError:
    """A key at the top level or in a group of settings."""
    group, _, rest = name.partition(".")
    hint = get_type_hints(kind).get(group)
    if rest and isinstance(hint, type) and is_dataclass(hint):
        names = [f"{group}.{entry.name}" for entry in fields(hint)]
    else:
        names, name = [entry.name for entry in fields(kind)], group
    _, place = _locate(sources, lambda path, _: _under(path, name), name)
    return ConfigError(f"{name} is not a known key{place}.", wrong=name, allowed=names)


def _unknown_class(
    name: str, base: type | None, field: str, sources: Sequence[Source], said: str
) -> ConfigError:
    key, place = _locate(sources, lambda path, value: _under(path, field) and value == name, field)
    return ConfigError(
        f"{key.removesuffix('.class_path')}: {name} {said}{place}.\n"
        "  A class from elsewhere needs its dotted path, for instance mypackage.MyClass.",
        wrong=name.rpartition(".")[2],
        allowed=sorted(_concrete(base)),
    )


def _wrong_value(
    expected: str, value: str, text: str, field: str, sources: Sequence[Source]
) -> ConfigError:
    inner = re.findall(r'Parser key "([\w.]+)"', text)[-1]
    key, place = _locate(
        sources,
        lambda path, found: _under(path, field) and path.endswith(inner) and str(found) == value,
        inner,
    )
    wanted = re.sub(r"<class '([^']+)'>", r"\1", expected.removeprefix("Expected "))
    wanted = re.sub(r"^an? ", "", wanted)
    wanted = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", wanted)
    words = {
        "int": "a whole number", "float": "a number", "bool": "true or false",
        "tuple": "a list", "dict": "keys and values",
    }  # fmt: skip
    return ConfigError(f"{key} must be {words.get(wanted, wanted)}; got {value!r}{place}.")


def _first(pattern: str, text: str) -> str:
    """The first group of the first match; empty if there is none."""
    found = re.search(pattern, text)
    return found[1] if found else ""


def _locate(
    sources: Sequence[Source], accept: Callable[[str, Any], bool], default: str
) -> tuple[str, str]:
    """The dotted key that is accepted in the strongest source, and that source in brackets."""
    for source in sources:
        for path in _walk(source.values, "", accept):
            return path, f" ({source.name})"
    return default, ""


def _walk(node: object, prefix: str, accept: Callable[[str, Any], bool]) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{prefix}{key}"
            if accept(path, value):
                yield path
            yield from _walk(value, f"{path}.", accept)


def _under(path: str, field: str) -> bool:
    return path == field or path.startswith(f"{field}.")


@dataclass(frozen=True)
class _Base:
    """What a field's factory makes, and how many sizes it is given."""

    cls: type | None
    bound: int


def _base(kind: type, field: str) -> _Base:
    hint = get_type_hints(kind).get(field)
    if get_origin(hint) is dict:
        hint = get_args(hint)[1]
    if get_origin(hint) is Callable:
        sizes, made = get_args(hint)
        return _Base(made if isinstance(made, type) else None, len(sizes))
    return _Base(None, 0)


def _wanted(text: str, kind: type, field: str) -> type | None:
    """The class whose subclasses would be right where an error occurred: a part's, or its part's.

    jsonargparse names the argument last, and before it the class that takes it; for a part of the
    first level only at the end of its message.
    """
    name = re.findall(r'Parser key "([\w.]+)"', text)[-1].rpartition(".")[2]
    owners = re.findall(r"given class_path '([^']+)'", text) or re.findall(
        r"class_path='([^']+)'", text
    )
    if name == field or not owners or (owner := _import(owners[-1])) is None:
        return _base(kind, field).cls
    pending = [get_type_hints(owner.__init__).get(name)]
    for hint in pending:
        if isinstance(hint, type) and hint.__module__ != "builtins" and hint is not NoneType:
            return hint
        pending += get_args(hint)
    return None


def _concrete(base: type | None) -> set[str]:
    """Names of the public classes below one that have been imported."""
    found = set()
    for cls in base.__subclasses__() if base else ():
        if not inspect.isabstract(cls) and not cls.__name__.startswith("_"):
            found.add(cls.__name__)
        found |= _concrete(cls)
    return found


def _import(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None
