"""Merge several comparisons into one report: `calmkit report DIR...`.

The variants keep the order of the comparisons, and differences are to the first variant of the
first comparison. If the texts, budgets or machines differ, the merged result names each of them,
and the notes say so. Documents of different texts, or of another held-out part, get different
numbers, so that they do not count as shared.
"""

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import yaml

from calmkit.comparison import ComparisonResult, VariantResult, read_results
from calmkit.experiments import RunResult

from .base import Report
from .notes import SEVERAL
from .report_files import write_report

__all__ = ["merge", "merged_report", "report_folders"]

RESULTS = "results.json"


def merge(results: Sequence[ComparisonResult], names: Sequence[str]) -> ComparisonResult:
    """Merge results into one result with all variants.

    Args:
        results: At least one result.
        names: A name for each result, used as a prefix of variant names that are not unique.

    Raises:
        ValueError: If there is no result, or the names are not unique or not one per result.
    """
    if not results or len(names) != len(results) or len(set(names)) != len(names):
        raise ValueError(
            "names must be different, one for each of at least one result; got "
            f"{list(names)} for {len(results)} results."
        )
    if len(results) == 1:
        return results[0]
    texts = list(dict.fromkeys(result.corpus_digest for result in results))
    taken = Counter(variant.name for result in results for variant in result.variants)
    variants: list[VariantResult] = []
    numbers: dict[Hashable, int] = {}
    for result, name in zip(results, names, strict=True):
        first = numbers.setdefault(_held_out(result), _unused(variants))
        for variant in result.variants:
            called = variant.name if taken[variant.name] == 1 else f"{name}-{variant.name}"
            runs = tuple(_numbered(run, first) for run in variant.runs)
            variants.append(dataclasses.replace(variant, name=called, runs=runs))
    versions: dict[str, str] = {}
    for library in dict.fromkeys(key for result in results for key in result.versions):
        versions[library] = _joined(result.versions.get(library, "") for result in results)
    corpora = {result.corpus_digest: result.corpus_name for result in reversed(results)}
    return ComparisonResult(
        name=", ".join(names),
        variants=_different(variants),
        seeds=tuple(sorted({seed for result in results for seed in result.seeds})),
        budget=_joined(result.budget for result in results),
        corpus_name=SEVERAL.join(corpora[digest] for digest in texts),
        corpus_digest=SEVERAL.join(texts),
        config="".join(
            f"# {name}\n{result.config.rstrip()}\n---\n"
            for result, name in zip(results, names, strict=True)
        ),
        hardware=_joined(result.hardware for result in results),
        versions=versions,
        remarks=tuple(dict.fromkeys(one for result in results for one in result.remarks)),
    )


def report_folders(directories: Sequence[Path], output: Path) -> tuple[Report, list[Path]]:
    """Read the results of several comparisons, and write one merged report.

    Args:
        directories: Folders with a `results.json`.
        output: Folder for the report.

    Returns:
        The merged report, and the files written.

    Raises:
        ValueError: As in `merged_report`, or if the output is one of the folders.
    """
    if output.resolve() in {path.resolve() for path in directories}:
        raise ValueError(
            f"output must not be one of the input folders; got {output}, whose own "
            "results would be replaced."
        )
    report = merged_report(directories)
    return report, write_report(report, output)


def merged_report(directories: Sequence[Path]) -> Report:
    """Read the results of one or several comparisons.

    Args:
        directories: Folders with a `results.json`.

    Raises:
        ValueError: If there is no folder, a folder is named twice, or its results are missing or
            unreadable.
    """
    if not directories:
        raise ValueError("directories must name at least one folder with results; got none.")
    if len({path.resolve() for path in directories}) != len(directories):
        raise ValueError(f"directories must be different; got {', '.join(map(str, directories))}.")
    results = [_read(directory) for directory in directories]
    return Report.of(merge(results, _names(directories)))


def _read(directory: Path) -> ComparisonResult:
    try:
        return read_results(directory / RESULTS)
    except OSError as error:
        raise ValueError(
            f"directories must each hold a {RESULTS} written by `calmkit compare`; "
            f"{directory} does not: {error.strerror}."
        ) from None
    except ValueError as error:
        raise ValueError(f"{directory / RESULTS}: {error}") from None


def _names(directories: Sequence[Path]) -> list[str]:
    """The last components of each path, as many as make the names unique."""
    paths = [path.resolve() for path in directories]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["-".join(path.parts[-depth:]).lstrip("/-") for path in paths]


def _held_out(result: ComparisonResult) -> Hashable:
    """What decides which documents are scored, and therefore what their numbers mean."""
    config = next(yaml.safe_load_all(result.config), None)
    known = config if isinstance(config, dict) else {}
    split = [str(known.get(key)) for key in ("evaluation_seed", "validation_fraction")]
    return (result.corpus_digest, known.get("evaluation_data") is None, *split)


def _unused(variants: Iterable[VariantResult]) -> int:
    """The first number after those of all documents."""
    groups = (max(run.documents.groups) for variant in variants for run in variant.runs)
    return 1 + max(groups, default=-1)


def _numbered(run: RunResult, first: int) -> RunResult:
    """The run with numbers of its documents that begin with the given one."""
    documents = run.documents
    groups = tuple(first + group for group in documents.groups)
    return dataclasses.replace(run, documents=dataclasses.replace(documents, groups=groups))


def _different(variants: Iterable[VariantResult]) -> tuple[VariantResult, ...]:
    """Number the names that are still equal."""
    found: dict[str, VariantResult] = {}
    for variant in variants:
        name, number = variant.name, 2
        while name in found:
            name, number = f"{variant.name}-{number}", number + 1
        found[name] = dataclasses.replace(variant, name=name)
    return tuple(found.values())


def _joined(values: Iterable[str]) -> str:
    return SEVERAL.join(dict.fromkeys(value for value in values if value))
