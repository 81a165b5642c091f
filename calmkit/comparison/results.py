"""The result of a comparison, and its file.

Brier scores are in per cent and signed: 100 is a certain and correct prediction, and the unbiased
estimate of a small score can be negative. Energy score and cross entropy are losses; lower is
better. The errors of one run are over resampled held-out documents; `summary` combines them with
the variance between seeds.

The schema is versioned. Schemas 3 and 4 can be read as well: their obsolete fields are dropped,
the unigram is their only baseline, and an unknown estimate, which they store as an object of
nulls, becomes null as in schema 5. Files of other versions are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.experiments import RunResult, from_json, from_plain, to_json, to_plain

__all__ = ["SCHEMA_VERSION", "ComparisonResult", "Failure", "VariantResult", "read_results"]

SCHEMA_VERSION = 5
# In schemas 3 and 4: obsolete fields, fields that are 0 if the training is unknown, and the form
# of an unknown estimate.
_DROPPED = ("untrained_brier", "brier_places", "training_losses")
_ZERO = ("steps", "trained_tokens")
_UNKNOWN = {"value": None, "standard_error": None, "interval": None}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed run.

    Attributes:
        seed: Its seed.
        reason: The error.
    """

    seed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """All runs of one variant.

    Attributes:
        name: Its name in the comparison.
        head: Class of its head, or of the model if it has no head.
        parameters: Number of trained parameters.
        head_parameters: Parameters of the head, or of a softmax model's output.
        config: The keys in which it differs from the other variants, as YAML.
        runs: The successful runs, one per seed.
        failures: The failed runs.
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
    """All variants of a comparison, and their common settings.

    Attributes:
        name: Name of the comparison.
        variants: In the config's order; differences are to the first one.
        seeds: Seeds of training.
        budget: The quantity held equal: steps, flops or seconds.
        corpus_name: Name of the text.
        corpus_digest: SHA-256 of its documents.
        config: The effective config as YAML.
        hardware: Device and threads.
        versions: Versions of Python and of the numerical libraries.
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
        """Strict JSON; unknown values are null."""
        return to_json({"schema_version": SCHEMA_VERSION, **to_plain(self)})

    @staticmethod
    def from_json(text: str) -> "ComparisonResult":
        """Read the JSON written by `to_json`.

        Raises:
            ValueError: If it is not JSON of a supported schema.
        """
        content = from_json(text, dict[str, Any])
        version = content.pop("schema_version", None)
        if version not in (3, 4, SCHEMA_VERSION):
            raise ValueError(
                f"schema_version must be 3, 4 or {SCHEMA_VERSION}; got {version}. Another calmkit "
                "wrote it: read it with that one, or compare again."
            )
        if version < SCHEMA_VERSION:
            content = _in_schema_5(content)
        return from_plain(content, ComparisonResult)


def read_results(path: Path) -> ComparisonResult:
    """Read a `results.json`.

    Raises:
        ValueError: If it is not JSON of a supported schema.
    """
    if path.exists() and not path.is_file():  # for example a device without an end
        raise ValueError(f"results must be a file; {path} is not.")
    return ComparisonResult.from_json(path.read_text(encoding="utf-8"))


def _in_schema_5(node: Any) -> Any:
    """Convert content of schema 3 or 4."""
    if node == _UNKNOWN:
        return None
    if isinstance(node, dict):
        new = {
            name: None if name in _ZERO and x == 0 else _in_schema_5(x)
            for name, x in node.items()
            if name not in _DROPPED
        }
        if "unigram_brier" in new:
            unigram = new.pop("unigram_brier")
            new["baselines"] = None if unigram is None else {"unigram": unigram}
        return new
    return [_in_schema_5(x) for x in node] if isinstance(node, list) else node
