"""`calmkit check`: run the contract tests of a kind of part on a part of your own."""

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calmkit.config import parse_function
from calmkit.spelling import did_you_mean
from calmkit.testing import Report, check_part
from calmkit.testing.finding import parts_at

from .mistakes import mistakes

__all__ = ["run"]

_USAGE = "calmkit check PATH [--KEY VALUE ...] [--json]"


def run(options: list[str]) -> None:
    """Print a table per part as it is done, and exit with code 1 if a contract is broken.

    Args:
        options: The words after `calmkit check`; see `_options`.
    """
    paths = [option for option in options[:1] if not option.startswith("-")]
    as_json = "--json" in options
    with mistakes():
        rest = [option for option in options[len(paths) :] if option != "--json"]
        chosen = parse_function(_options, rest, command="calmkit check PATH [--json]")
        if not paths:
            raise ValueError(f"path must come first, such as my_head.MyHead: {_USAGE}")
        only = chosen.pop("only")
        chosen["only"] = None if only is None else only.split(",")
        chosen["exempt"] = chosen["exempt"] or {}
        arguments = chosen.pop("arguments") or {}
        parts = {
            path: (kind, _with(arguments, factory, path))
            for path, (kind, factory) in parts_at(paths[0], chosen.pop("kind")).items()
        }
        reports = {}
        for path, (part_kind, factory) in parts.items():
            with _contract_shown():
                reports[path] = report = check_part(part_kind, factory, **chosen)
            if not as_json:
                _show(path, report, arguments)
    if as_json:
        print(json.dumps({path: report.to_dict() for path, report in reports.items()}, indent=2))
    if not all(report.passed for report in reports.values()):
        raise SystemExit(1)


def _with(arguments: dict[str, Any], factory: Callable[..., Any], path: str) -> Callable[..., Any]:
    """The factory with some of its arguments given; an unknown one is refused."""
    parameters = inspect.signature(factory).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        known = None
    else:
        # The sizes, which the suite passes by position, have no default.
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        known = [
            name for name, one in parameters.items()
            if one.kind in named and (one.kind is named[0] or one.default is not one.empty)
        ]  # fmt: skip
    for name in arguments:
        if known is not None and name not in known:
            raise ValueError(
                f"arguments must be keywords of {path}; {name} is none."
                f"{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}."
            )
    return functools.partial(factory, **arguments) if arguments else factory


@contextmanager
def _contract_shown() -> Iterator[None]:
    """Context in which a terminal shows the contract that is being checked."""
    if not sys.stderr.isatty():
        yield
        return
    log, line = logging.getLogger("calmkit.testing"), _Line()
    level = log.level
    log.addHandler(line)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(line)
        line.write("")


class _Line(logging.Handler):
    """One line of the terminal, which the next record overwrites."""

    def emit(self, record: logging.LogRecord) -> None:
        self.write(record.getMessage())

    def write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")  # erases the line first
        sys.stderr.flush()


def _show(path: str, report: Report, arguments: dict[str, Any]) -> None:
    print(f"{report}\n")
    if failure := next(report.failures(), None):
        again = f"--only {failure.name} --profile {report.profile} --seed {report.seed}"
        given = "".join(f" --arguments.{name} {value}" for name, value in arguments.items())
        print(f"To repeat a failure alone: calmkit check {path}{given} {again}\n")
    sys.stdout.flush()  # a module takes minutes, and the output may be a pipe


def _options(
    *,
    kind: str | None = None,
    profile: str = "standard",
    seed: int = 0,
    only: str | None = None,
    exempt: dict[str, str] | None = None,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Run the contracts of its kind on a part, or on all parts of a module.

    Args:
        kind: head, rule, kernel, noise, solver, sampler, autoencoder, input_encoder, backbone or
            attention. None: inferred from the part.
        profile: quick (seconds), standard (about a minute) or deep.
        seed: The same seed gives the same checks.
        only: Contracts to run, separated by commas. None: all.
        exempt: Contracts to skip, with the reason: --exempt.NAME "this head ...".
        arguments: Keywords of the part's constructor, such as --arguments.width 8 for a narrow
            instance, with which the check is quick.
    """
