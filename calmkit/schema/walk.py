"""Walk merged configs key by key, tracking the class of each part and its arguments."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from calmkit.manual import COMPARISON_OPTIONS, modules_defining
from calmkit.recording import check_factory

from .classes import (
    Argument,
    Unusable,
    arguments_of,
    find_class,
    known_classes,
    takes_any,
    takes_leading,
)
from .errors import ConfigError, UnknownKeyError
from .values import Part, alternatives, is_text, loaded, part_of, shown, wanted

__all__ = ["Place", "Walk"]

_COMPARISON_KEYS = frozenset(option.name for option in COMPARISON_OPTIONS)


@dataclass(frozen=True)
class Place:
    """The location of a value.

    Attributes:
        key: The dotted key, without `init_args`.
        written: The key as the user wrote it.
        hint: The annotation of the value.
        source: The source of the value, in brackets.
    """

    key: str
    written: str
    hint: Any
    source: str

    @property
    def part(self) -> Part | None:
        """The part that the annotation describes, if any."""
        return None if self.group else part_of(self.hint)

    @property
    def group(self) -> bool:
        """Whether it is one of the experiment's groups of settings."""
        settings = isinstance(self.hint, type) and dataclasses.is_dataclass(self.hint)
        return settings and "." not in self.key


class Walk:
    """The state of a walk through a config.

    Attributes:
        schema: The top-level keys.
        made: The class of each part by key; None if the config contains a built object.
        given: Keys that have a value.
        bound: Number of arguments of a part that come from elsewhere, by key.
    """

    def __init__(self, schema: Mapping[str, Argument]) -> None:
        self.schema = schema
        self.made: dict[str, Callable[..., Any] | None] = {}
        self.given: set[str] = set()
        self.bound: dict[str, int] = {}

    def top(self, key: str, rest: list[str], written: str, value: Any, source: str) -> None:
        """Visit a value at a key of the schema, or at the path `rest` below it."""
        if key not in self.schema:
            if key in _COMPARISON_KEYS:
                raise ConfigError(
                    f"{key} is not a known key{source}. It belongs to `calmkit compare`."
                )
            raise UnknownKeyError(key, source, self.schema, below=self._below(key))
        self._inside(Place(key, written, self.schema[key].hint, source), rest, value)

    def _below(self, name: str) -> list[str]:
        """Keys of this name among the groups of settings and the parts chosen so far."""
        groups = [key for key, one in self.schema.items() if Place(key, key, one.hint, "").group]
        known = {key: arguments_of(self.schema[key].hint) for key in groups}
        known |= {key: self._free(key, made) for key, made in self.made.items() if made}
        return [f"{key}.{name}" for key, arguments in known.items() if name in arguments]

    def check_complete(self) -> None:
        """Refuse a config that lacks a required value."""
        missing = [
            name
            for name, argument in self.schema.items()
            if argument.required and name not in self.given
        ]
        for key, made in self.made.items():
            for name, argument in self._free(key, made).items():
                if argument.required and f"{key}.{name}" not in self.given:
                    missing.append(f"{key}.{name} of {_name(made)}")
        if missing:
            raise ConfigError(
                f"missing: {', '.join(missing)}. Give it in a config file or as an option."
            )

    def _inside(self, at: Place, rest: list[str], value: Any) -> None:
        """Visit a value at a place, or below it."""
        part = at.part
        if not rest:
            self._value(at, value)
        elif at.group:
            self._inside(self._setting(at, rest[0]), rest[1:], value)
        elif part is None:
            if wanted(at.hint, {}):  # a mapping has keys of its own
                raise ConfigError(
                    f"{at.written}: {at.key} has no keys of its own{at.source}; set it as "
                    f"--{at.key} VALUE."
                )
            self.given.add(at.key)
        elif rest == ["class_path"]:
            self._spec(at, part, {"class_path": value})
        elif rest == ["init_args"]:
            self._arguments(at, value)
        elif rest[0] == "init_args":
            self._inside(at, rest[1:], value)
        elif self.made.get(at.key, at) is not None:
            inner = self.argument(at, rest[0])
            self._inside(inner, rest[1:], value)

    def _value(self, at: Place, value: Any) -> None:
        """Visit a whole value."""
        self.given.add(at.key)
        if isinstance(value, str):
            if not is_text(value):
                raise ConfigError(
                    f"{at.written} must be valid UTF-8 text; got {shown(value)}"
                    f"{at.source}, with half of a character."
                )
            if "." in at.key and isinstance(loaded(value), list | dict | NoneType):
                value = loaded(value)  # as the parser does below the first level
        if at.group:
            return self._settings(at, loaded(value))
        if (part := at.part) is not None:
            return self._part(at, part, value)
        if expected := wanted(at.hint, value):
            raise ConfigError(f"{at.written} must be {expected}; got {shown(value)}{at.source}.")
        if isinstance(entries := loaded(value), Mapping):
            self._named(at, entries)
        members = typing.get_args(at.hint)[:1]
        if members and part_of(members[0]) is not None:
            for number, one in enumerate(loaded(value)):
                key, written = f"{at.key}.{number}", f"{at.written}[{number}]"
                self._value(Place(key, written, members[0], at.source), one)
        return None

    def _named(self, at: Place, entries: Mapping[Any, Any]) -> None:
        """Visit named groups of settings, annotated like `dict[str, WeightedText]`."""
        for choice in alternatives(at.hint):
            kind = (*typing.get_args(choice), None, None)[1]  # of dict[str, kind]
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                continue
            if not entries:
                raise ConfigError(f"{at.written} must name at least one; got none{at.source}.")
            for name, settings in entries.items():
                key = f"{at.key}.{name}"
                self._settings(Place(key, key, kind, at.source), settings)
                needed = [n for n, argument in arguments_of(kind).items() if argument.required]
                if missing := [n for n in needed if n not in settings]:
                    raise ConfigError(f"{key} must have {' and '.join(missing)}{at.source}.")

    def _settings(self, at: Place, value: Any) -> None:
        """Visit a whole group of settings."""
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{at.written} must be keys and values; got {shown(value)}{at.source}. Set one as "
                f"--{at.key}.KEY VALUE.",
                allowed=arguments_of(at.hint),
            )
        for name, one in value.items():
            self._value(self._setting(at, str(name)), one)

    def _setting(self, at: Place, name: str) -> Place:
        """The place of one setting of a group."""
        known = {f"{at.key}.{one}": argument for one, argument in arguments_of(at.hint).items()}
        if (key := f"{at.key}.{name}") not in known:
            raise ConfigError(f"{key} is not a known key{at.source}.", wrong=key, allowed=known)
        return Place(key, key, known[key].hint, at.source)

    def _part(self, at: Place, part: Part, value: Any) -> None:
        """Visit a class, alone or with its arguments."""
        if isinstance(value, str) and (value[:1] in ("{", "[") or loaded(value) is None):
            value = loaded(value)
        if value is None and part.optional:
            self._choose(at, None)
            del self.made[at.key]
        elif isinstance(value, str) and value.strip():
            self._choose(at, self.named(at, part, value))
        elif isinstance(value, Mapping):
            self._spec(at, part, value)
        elif callable(value) or _is_object(value, part.base):
            if part.is_factory:
                try:
                    check_factory(**{at.written: value})
                except ValueError as error:
                    raise ConfigError(str(error)) from None
            self._choose(at, None)
        else:
            raise ConfigError(
                f"{at.written} must be a class, or keys class_path and init_args; got "
                f"{shown(value)}{at.source}.",
                allowed=known_classes(part.base, part.bound),
            )

    def _spec(self, at: Place, part: Part, value: Mapping[Any, Any]) -> None:
        """Visit a part given as `class_path`, `init_args` or both."""
        keys = {"class_path", "init_args", "dict_kwargs"}
        if not keys & set(value) and dataclasses.is_dataclass(self.class_at(at)):
            return self._arguments(at, value)
        for name in value:
            if name not in keys:
                raise ConfigError(
                    f"{at.written}.{name} is not a key of a part{at.source}.",
                    wrong=str(name),
                    allowed=("class_path", "init_args"),
                )
        if "class_path" in value:
            name = value["class_path"]
            if not isinstance(name, str):
                raise ConfigError(
                    f"{at.written}.class_path must be a class; got {shown(name)}{at.source}.",
                    allowed=known_classes(part.base, part.bound),
                )
            self._choose(at, self.named(at, part, name))
            self._check_is_class(at, part)
        made = self.class_at(at)
        if "dict_kwargs" in value and made is not None and not takes_any(made):
            raise ConfigError(
                f"{at.written}.dict_kwargs: {_name(made)} takes no arguments that it does not "
                f"name{at.source}; write init_args."
            )
        if "init_args" in value:
            inner = dataclasses.replace(at, written=f"{at.written}.init_args")
            self._arguments(inner, value["init_args"])
        return None

    def _arguments(self, at: Place, value: Any) -> None:
        """Visit all arguments of a part."""
        if not isinstance(value := loaded(value), Mapping):
            raise ConfigError(
                f"{at.written} must be keys and values; got {shown(value)}{at.source}. Leave it "
                "out, or write {} for none."
            )
        for name, one in value.items():
            below = dataclasses.replace(at, written=f"{at.written}.{name}")
            self._inside(below, [str(name)], one)

    def argument(self, at: Place, name: str) -> Place:
        """The place of one argument of a part, whose class must be known."""
        made, part = self.class_at(at), at.part
        if made is None or part is None:
            raise ConfigError(
                f"{at.written}: {at.key} names no class yet{at.source}. Name it first: "
                f"--{at.key} CLASS, or class_path in a file.",
                allowed=[] if part is None else known_classes(part.base, part.bound),
            )
        self.made[at.key], self.bound[at.key] = made, part.bound
        self._check_is_class(at, part)
        arguments = arguments_of(made)
        if name in list(arguments)[: part.bound]:
            raise ConfigError(
                f"{at.written} cannot be set{at.source}: {_name(made)} receives its {name} from "
                "the sizes at the top of the config."
            )
        if name not in arguments and not takes_any(made):
            raise ConfigError(
                f"{at.written}: {_name(made)} has no argument {name!r}{at.source}.",
                wrong=name,
                allowed=self._free(at.key, made),
            )
        key = f"{at.key}.{name}"
        self.given.add(key)
        hint = arguments[name].hint if name in arguments else Any
        return Place(key, at.written, hint, at.source)

    def named(self, at: Place, part: Part, name: str) -> Callable[..., Any] | None:
        """The class of that name; refuses an unusable one."""
        try:
            found = find_class(name, part.base)
        except Unusable as error:
            reason = str(error)
        else:
            if found is not None and not takes_leading(found, part.bound):
                raise ConfigError(
                    f"{at.written}: {name} must take the {part.bound} arguments that it is given; "
                    f"it takes {', '.join(arguments_of(found)) or 'none'}{at.source}.",
                    allowed=known_classes(part.base, part.bound),
                )
            return found
        near, elsewhere = name.rpartition(".")[2], ""
        if "." not in name:
            elsewhere = (
                "\n  A class from elsewhere needs its dotted path, such as mypackage.MyClass."
            )
            if own := modules_defining(name, Path.cwd()):
                paths = " or ".join(f"{module}.{name}" for module in own)
                near, elsewhere = "", f"\n  A file of this folder defines it: write {paths}."
        elif near == "py":
            elsewhere = f"\n  {name} is a file; name a class in it, as {name[:-3]}.MyClass."
        raise ConfigError(
            f"{at.written}: {shown(name)[1:-1]} {reason}{at.source}.{elsewhere}",
            wrong=near,
            allowed=known_classes(part.base, part.bound),
        )

    def _check_is_class(self, at: Place, part: Part) -> None:
        """Refuse arguments for a function, which receives only the sizes."""
        made = self.made[at.key]
        if part.is_factory and inspect.isfunction(made):
            raise ConfigError(
                f"{at.written}: {_name(made)} must be a class to take arguments or stand as "
                f"class_path{at.source}; it is a function, which receives only the sizes. Name "
                f"it by itself: --{at.key} {made.__module__}.{_name(made)}."
            )

    def _choose(self, at: Place, made: Callable[..., Any] | None) -> None:
        """Set the class of a part, and drop arguments that it does not take."""
        kept = () if made is None else arguments_of(made)
        prefix = f"{at.key}."
        for known in [*self.made, *self.given]:
            if known.startswith(prefix) and known[len(prefix) :].split(".")[0] not in kept:
                self.made.pop(known, None)
                self.given.discard(known)
        self.made[at.key] = made
        self.bound[at.key] = 0 if at.part is None else at.part.bound

    def class_at(self, at: Place) -> Callable[..., Any] | None:
        """The part's class: the named one, or else the annotated one if it is concrete."""
        part = at.part
        if at.key in self.made or part is None or part.base is None:
            return self.made.get(at.key)
        try:
            return find_class(f"{part.base.__module__}.{part.base.__qualname__}", part.base)
        except Unusable:
            return None

    def _free(self, key: str, made: Callable[..., Any] | None) -> dict[str, Argument]:
        """The arguments of a part that a config may set."""
        if made is None:
            return {}
        return dict(list(arguments_of(made).items())[self.bound.get(key, 0) :])


def _is_object(value: Any, base: type | None) -> bool:
    """Whether a value from a Python mapping is a built part of this base class."""
    return base is not None and base in type(value).__mro__


def _name(made: Callable[..., Any] | None) -> str:
    return getattr(made, "__name__", str(made))
