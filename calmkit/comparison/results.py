"""The result of a comparison, and its file.

Brier scores are in per cent and signed: 100 is a certain and correct prediction, and the unbiased
estimate of a small score can be negative. Energy score and cross entropy are losses; lower is
better. The errors of one run are over resampled held-out documents; `summary` combines them with
the variance between seeds.

The schema is versioned. Schemas 3 to 6 can be read as well; files of other versions are refused.
In schemas 3 and 4, obsolete fields are dropped, the unigram is the only baseline, and an unknown
estimate, stored as an object of nulls, becomes null. Before schema 6 there is no tuning, and one
sample text without numbers. Before schema 7 there are no continuations, and the time per token is
a difference of two timings of each run, which may be negative: the positive ones count as repeats,
kept in the first run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.evaluation import SampleText, Timing
from calmkit.experiments import RunResult
from calmkit.json_converter import from_json, from_plain, to_json, to_plain
from calmkit.metrics import Estimate

__all__ = [
    "SCHEMA_VERSION", "ComparisonResult", "Failure", "TrialResult", "VariantResult",
    "read_results",
]  # fmt: skip

SCHEMA_VERSION = 7
_OLDEST = 3
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
class TrialResult:
    """A trial of tuning.

    Attributes:
        values: The value of each tuned key, as text.
        steps: Its optimiser steps.
        brier_1: Brier-1 on the rows for tuning, in per cent; None if it failed.
        is_chosen: Whether the variant has its values.
        failure: The error; empty if there is none.
    """

    values: Mapping[str, str]
    steps: int
    brier_1: Estimate | None
    is_chosen: bool
    failure: str = ""


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
        trials: Its trials, if it was tuned; the config has the chosen values.
    """

    name: str
    head: str
    parameters: int
    head_parameters: int
    config: str
    runs: tuple[RunResult, ...]
    failures: tuple[Failure, ...] = ()
    trials: tuple[TrialResult, ...] = ()


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
        remarks: What else was done to compare them, such as tuning, as sentences.
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
    remarks: tuple[str, ...] = ()

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
        if type(version) is not int or not _OLDEST <= version <= SCHEMA_VERSION:
            raise ValueError(
                f"schema_version must be from {_OLDEST} to {SCHEMA_VERSION}; got {version}. "
                "Another calmkit wrote it: read it with that one, or compare again."
            )
        if version < 5:
            content = _in_schema_5(content)
        if version < 6:
            content = _in_schema_6(content)
        if version < 7:
            content = _in_schema_7(content)
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


def _in_schema_6(content: dict[str, Any]) -> dict[str, Any]:
    """Convert content of schema 5."""
    for variant in _mappings(content.get("variants")):
        variant["trials"] = []
        for run in _mappings(variant.get("runs")):
            text = run.pop("sample_text", "")
            sample = SampleText(name="", temperature=None, texts=(text,))
            run["samples"] = [to_plain(sample)] if text else []
    return content | {"remarks": []}


def _in_schema_7(content: dict[str, Any]) -> dict[str, Any]:
    """Convert content of schema 6."""
    for variant in _mappings(content.get("variants")):
        runs = _mappings(variant.get("runs"))
        times = [run.pop("microseconds_per_token", None) for run in runs]
        known = [time for time in times if isinstance(time, int | float) and time > 0]
        for run in runs:
            run["microseconds_per_token"] = run["continuations"] = None
        if known:
            runs[0]["microseconds_per_token"] = to_plain(Timing.of(known))
    return content


def _mappings(node: Any) -> list[dict[str, Any]]:
    """The mappings in a list; a wrong value is named by the reader."""
    return [x for x in node if isinstance(x, dict)] if isinstance(node, list) else []
