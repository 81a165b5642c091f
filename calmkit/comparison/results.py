"""What a comparison found, in a form that survives as JSON.

Brier scores are in per cent (100 means a certain and right prediction) and signed: the unbiased
estimate of a small score can be negative. Energy score and cross entropy are losses, lower is
better. The errors of one run are those over resampled held-out documents; `summary` joins them
with the differences between seeds.

The schema is versioned: schema 3, which has one field more, is read too; a file of any other
version is refused, never half understood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.experiments import RunResult, plain, run_from_json, strict_json, understood
from calmkit.foreign_data import parse_json

__all__ = ["SCHEMA_VERSION", "ComparisonResult", "Failure", "VariantResult", "read_results"]

SCHEMA_VERSION = 4
_READABLE = (3, 4)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that did not end well.

    Attributes:
        seed: Its seed.
        reason: What went wrong.
    """

    seed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """All runs of one variant.

    Attributes:
        name: Its name in the comparison.
        head: Class of its head; of the model, where it has none.
        parameters: Trained parameters.
        head_parameters: Those of the head, or of a softmax model's output.
        config: What it sets other than the comparison as a whole, as YAML.
        runs: One for each seed that ended well.
        failures: The other ones.
    """

    name: str
    head: str
    parameters: int
    head_parameters: int
    config: str
    runs: tuple[RunResult, ...]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All variants of a comparison, and what they have in common.

    Attributes:
        name: What the comparison is called.
        variants: In the config's order; differences are to the first one.
        seeds: Seeds of training.
        budget: What is equal for all: steps, flops or seconds.
        corpus_name: The text.
        corpus_digest: SHA-256 of its documents.
        config: The effective config as YAML.
        hardware: Device and threads.
        versions: Versions of Python and of the libraries that matter.
    """

    name: str
    variants: tuple[VariantResult, ...]
    seeds: tuple[int, ...]
    budget: str
    corpus_name: str
    corpus_digest: str
    config: str
    hardware: str
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """Strict JSON: a number that is not finite becomes null."""
        return strict_json({"schema_version": SCHEMA_VERSION, **plain(self)})

    @staticmethod
    def from_json(text: str) -> "ComparisonResult":
        """Read what `to_json` wrote; null becomes NaN.

        Raises:
            ValueError: If it is not JSON of this version's schema.
        """
        with understood():
            content = parse_json(text)
            version = content.pop("schema_version")
            if version not in _READABLE:
                raise ValueError(
                    f"schema_version must be 3 or {SCHEMA_VERSION}; got {version}. Another "
                    "calmkit wrote it: read it with that one, or compare again."
                )
            variants = tuple(_variant(entry) for entry in content.pop("variants"))
            return ComparisonResult(
                variants=variants, seeds=tuple(content.pop("seeds")), **content
            )


def read_results(path: Path) -> ComparisonResult:
    """Read a `results.json`.

    Raises:
        ValueError: If it is not JSON of this version's schema.
    """
    if path.exists() and not path.is_file():  # a device, say, that never ends
        raise ValueError(f"results must be a file; {path} is none.")
    return ComparisonResult.from_json(path.read_text(encoding="utf-8"))


def _variant(content: dict[str, Any]) -> VariantResult:
    runs = tuple(run_from_json(run) for run in content.pop("runs"))
    failures = tuple(Failure(**failure) for failure in content.pop("failures"))
    return VariantResult(runs=runs, failures=failures, **content)
