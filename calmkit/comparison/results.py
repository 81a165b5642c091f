"""What a comparison found, and its file.

Brier scores are in per cent (100 means a certain and right prediction) and signed: the unbiased
estimate of a small score can be negative. Energy score and cross entropy are losses, lower is
better. The errors of one run are those over resampled held-out documents; `summary` joins them
with the differences between seeds.

The schema is versioned. Schemas 3 and 4 are read too: they have fields that are not kept any more,
the unigram as their only baseline, and a number of null with an error of null where schema 5 has
null. A file of any other version is refused, never half understood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.experiments import RunResult, from_json, from_plain, to_json, to_plain

__all__ = ["SCHEMA_VERSION", "ComparisonResult", "Failure", "VariantResult", "read_results"]

SCHEMA_VERSION = 5
# Of schemas 3 and 4: fields that are not kept, those that are 0 where the training is not known,
# and a number that is not known.
_DROPPED = ("untrained_brier", "brier_places", "training_losses")
_ZERO = ("steps", "trained_tokens")
_UNKNOWN = {"value": None, "standard_error": None, "interval": None}


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
        """Strict JSON; what is not known is null."""
        return to_json({"schema_version": SCHEMA_VERSION, **to_plain(self)})

    @staticmethod
    def from_json(text: str) -> "ComparisonResult":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is not JSON of a schema that is read.
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
        ValueError: If it is not JSON of this version's schema.
    """
    if path.exists() and not path.is_file():  # a device, say, that never ends
        raise ValueError(f"results must be a file; {path} is none.")
    return ComparisonResult.from_json(path.read_text(encoding="utf-8"))


def _in_schema_5(node: Any) -> Any:
    """What schema 3 or 4 wrote, without the fields that are dropped."""
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
