"""`calmkit check`: run the contract tests of a kind of part on a part of your own."""

import json
import sys

from calmkit.config import parse_function
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
        parts = parts_at(paths[0], chosen.pop("kind"))
        reports = {}
        for path, (part_kind, factory) in parts.items():
            reports[path] = report = check_part(part_kind, factory, **chosen)
            if not as_json:
                _show(path, report)
    if as_json:
        print(json.dumps({path: report.to_dict() for path, report in reports.items()}, indent=2))
    if not all(report.passed for report in reports.values()):
        raise SystemExit(1)


def _show(path: str, report: Report) -> None:
    print(f"{report}\n")
    if failure := next(report.failures(), None):
        again = f"--only {failure.name} --profile {report.profile} --seed {report.seed}"
        print(f"To repeat a failure alone: calmkit check {path} {again}\n")
    sys.stdout.flush()  # a module takes minutes, and the output may be a pipe


def _options(
    *,
    kind: str | None = None,
    profile: str = "standard",
    seed: int = 0,
    only: str | None = None,
    exempt: dict[str, str] | None = None,
) -> None:
    """Run the contracts of its kind on a part, or on all parts of a module.

    Args:
        kind: head, rule, kernel, noise, solver, sampler, autoencoder, input_encoder, backbone or
            attention. None: inferred from the part.
        profile: quick (seconds), standard (about a minute) or deep.
        seed: The same seed gives the same checks.
        only: Contracts to run, separated by commas. None: all.
        exempt: Contracts to skip, with the reason: --exempt.NAME "this head ...".
    """
