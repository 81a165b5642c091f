"""What a comparison found, in a form that survives as JSON.

Brier scores are in per cent (100 means a certain and right prediction) and signed: the unbiased
estimate of a small score can be negative. The energy score is a loss, lower is better. A
standard error is that of the estimate over resampled held-out documents.

The schema is versioned: a file of another version is refused, never half understood.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.metrics import Estimate

__all__ = ["SCHEMA_VERSION", "ComparisonResult", "HeadResult", "read_results"]

SCHEMA_VERSION = 1

Curve = tuple[tuple[int, float], ...]
"""Steps done, and a loss."""


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """One trained head.

    Attributes:
        name: Its name in the comparison.
        class_path: Its class.
        brier_lm: 100 times the geometric mean of Brier-1..4; 0 where one is not positive.
        brier: Brier-1..4, in per cent.
        untrained_brier: The same before training.
        energy_score: Energy score of its samples on held-out text.
        untrained_energy_score: The same before training.
        parameters: Parameters of the head alone.
        evaluations_per_sample: Network evaluations for one sample; None where it depends.
        training_seconds: Time of its training steps.
        microseconds_per_token: Time of a generated token.
        sample_text: A short generated text.
        training_losses: Steps and its own training loss; not comparable between heads.
        validation_losses: Steps and its own loss on held-out text; likewise.
    """

    name: str
    class_path: str
    brier_lm: float
    brier: tuple[Estimate, ...]
    untrained_brier: tuple[Estimate, ...]
    energy_score: Estimate
    untrained_energy_score: Estimate
    parameters: int
    evaluations_per_sample: int | None
    training_seconds: float
    microseconds_per_token: float
    sample_text: str
    training_losses: Curve
    validation_losses: Curve


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All heads of a comparison, and what they have in common.

    Attributes:
        heads: The heads, in the config's order.
        unigram_brier: Brier-1..4 of the training text's token frequencies, without context.
        shared_parameters: Parameters of backbone and input encoder, the same for every head.
        autoencoder_accuracy: Share of held-out tokens that the autoencoder restores, in [0, 1].
        corpus_name: The text.
        corpus_digest: SHA-256 of its documents.
        protocol: The evaluation in a sentence: rows, context, draws, standard errors.
        seed: The seed.
        hardware: Device and threads.
        versions: Versions of Python and of the libraries that matter.
    """

    heads: tuple[HeadResult, ...]
    unigram_brier: tuple[Estimate, ...]
    shared_parameters: int
    autoencoder_accuracy: float
    corpus_name: str
    corpus_digest: str
    protocol: str
    seed: int
    hardware: str
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """Strict JSON: a number that is not finite becomes null."""
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(_without_nan(content), indent=2, allow_nan=False, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "ComparisonResult":
        """Read what `to_json` wrote; null becomes NaN.

        Raises:
            ValueError: If it is not JSON of this version's schema.
        """
        try:
            content = json.loads(text)
            version = content.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema_version must be {SCHEMA_VERSION}; got {version}.")
            heads = tuple(_head(head) for head in content.pop("heads"))
            return ComparisonResult(
                heads=heads,
                unigram_brier=_four(content.pop("unigram_brier")),
                autoencoder_accuracy=_number(content.pop("autoencoder_accuracy")),
                **content,
            )
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"results must be JSON as written by `calmkit compare`: {error!r}."
            ) from error


def read_results(path: Path) -> ComparisonResult:
    """Read a `results.json`.

    Raises:
        ValueError: If it is not JSON of this version's schema.
    """
    return ComparisonResult.from_json(path.read_text(encoding="utf-8"))


def _without_nan(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _estimate(content: Mapping[str, Any]) -> Estimate:
    return Estimate(_number(content["value"]), _number(content["standard_error"]))


def _four(content: list[Any]) -> tuple[Estimate, ...]:
    first, second, third, fourth = (_estimate(entry) for entry in content)
    return first, second, third, fourth


def _curve(content: list[Any]) -> Curve:
    return tuple((step, _number(loss)) for step, loss in content)


def _head(content: dict[str, Any]) -> HeadResult:
    read: dict[str, Callable[[Any], Any]] = {
        "brier": _four, "untrained_brier": _four,
        "energy_score": _estimate, "untrained_energy_score": _estimate,
        "training_losses": _curve, "validation_losses": _curve,
        "brier_lm": _number, "training_seconds": _number, "microseconds_per_token": _number,
    }  # fmt: skip
    values: dict[str, Any] = {
        name: read[name](value) if name in read else value for name, value in content.items()
    }
    return HeadResult(**values)
