"""What a comparison found, in a form that survives as JSON.

Brier scores are in per cent (100 means a certain and right prediction) and signed: the unbiased
estimate of a small score can be negative. Energy score and cross entropy are losses, lower is
better. The errors of one run are those over resampled held-out documents; `summary` joins them
with the differences between seeds.

The schema is versioned: a file of another version is refused, never half understood.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.foreign_data import ForeignDataError, parse_json
from calmkit.metrics import DocumentScores, Estimate

__all__ = [
    "SCHEMA_VERSION", "ComparisonResult", "Failure", "RunResult", "VariantResult", "read_results",
]  # fmt: skip

SCHEMA_VERSION = 3

Curve = tuple[tuple[int, float], ...]
"""Steps done, and a number."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One variant, trained with one seed and measured.

    Attributes:
        seed: The seed of training.
        steps: Optimiser steps.
        trained_tokens: Tokens of text in the batches of those steps.
        training_flops: Operations of training backbone and head, by accounting; NaN where the
            account cannot tell.
        training_seconds: Time of its training steps; NaN for a model that was only measured.
        brier_lm: 100 times the geometric mean of Brier-1..4; 0 where one is not positive.
        brier: Brier-1..4, in per cent.
        brier_places: Brier-1 of each place in the chunk, in per cent.
        documents: Sums of every score over the documents.
        unigram_brier: Brier-1..4 of the training text's token frequencies, at the same places.
        untrained_brier: Brier-1 before training, on a few of the rows.
        energy_score: Of drawn latents against the posteriors; NaN for a softmax model.
        cross_entropy: Nats per token of a softmax model; NaN for others.
        autoencoder_accuracy: Share of held-out tokens that the autoencoder restores; NaN without.
        noise_curve: Size of noise on a latent, in spreads of all latents, and the share restored.
        evaluations_per_sample: Network evaluations for one latent; None where it depends.
        sampling_flops: Operations per new token with plain sampling; NaN as above.
        microseconds_per_token: Time of a generated token, with the variant's sampler.
        draws_per_chunk: Candidates the sampler took for a chunk.
        unsettled: Share of chunks for which they did not suffice.
        chosen_accuracy: Share of held-out tokens that a chosen chunk has right, in per cent.
        sample_text: A short generated text.
        training_losses: Steps and its own training loss; not comparable between heads.
        validation_losses: Steps and its own loss on held-out text; likewise.
        validation_brier: Steps and Brier-1 on a few held-out rows, in per cent.
        protocol: The evaluation in a sentence.
    """

    seed: int
    steps: int
    trained_tokens: int
    training_flops: float
    training_seconds: float
    brier_lm: float
    brier: tuple[Estimate, ...]
    brier_places: tuple[Estimate, ...]
    documents: DocumentScores
    unigram_brier: tuple[Estimate, ...]
    untrained_brier: Estimate
    energy_score: Estimate
    cross_entropy: Estimate
    autoencoder_accuracy: float
    noise_curve: tuple[tuple[float, float], ...]
    evaluations_per_sample: int | None
    sampling_flops: float
    microseconds_per_token: float
    draws_per_chunk: float
    unsettled: float
    chosen_accuracy: Estimate
    sample_text: str
    training_losses: Curve
    validation_losses: Curve
    validation_brier: Curve
    protocol: str

    def to_json(self) -> str:
        """Strict JSON."""
        return _json(_plain(self))

    @staticmethod
    def from_json(text: str) -> "RunResult":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        with _understood():
            return _run(parse_json(text))


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
        return _json({"schema_version": SCHEMA_VERSION, **_plain(self)})

    @staticmethod
    def from_json(text: str) -> "ComparisonResult":
        """Read what `to_json` wrote; null becomes NaN.

        Raises:
            ValueError: If it is not JSON of this version's schema.
        """
        with _understood():
            content = parse_json(text)
            version = content.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"schema_version must be {SCHEMA_VERSION}; got {version}. Another calmkit "
                    "wrote it: read it with that one, or compare again."
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
    return ComparisonResult.from_json(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Whatever is unexpected in a file becomes one named error."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ForeignDataError) as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(".")
        raise ValueError(
            f"results must be JSON as written by `calmkit compare`; got {said}."
        ) from error


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)


def _plain(node: Any) -> Any:
    """Dataclasses as mappings, numbers that are not finite as None."""
    if isinstance(node, DocumentScores):
        return node.to_dict()
    if dataclasses.is_dataclass(node):
        return {
            entry.name: _plain(getattr(node, entry.name)) for entry in dataclasses.fields(node)
        }
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _estimate(content: Mapping[str, Any]) -> Estimate:
    interval = content["interval"]
    return Estimate(
        _number(content["value"]),
        _number(content["standard_error"]),
        None if interval is None else (_number(interval[0]), _number(interval[1])),
    )


def _estimates(content: list[Any]) -> tuple[Estimate, ...]:
    return tuple(_estimate(entry) for entry in content)


def _curve(content: list[Any]) -> Curve:
    return tuple((step, _number(value)) for step, value in content)


def _run(content: dict[str, Any]) -> RunResult:
    read: dict[str, Callable[[Any], Any]] = {
        "documents": DocumentScores.from_dict,
        **dict.fromkeys(("brier", "brier_places", "unigram_brier"), _estimates),
        **dict.fromkeys(
            ("untrained_brier", "energy_score", "cross_entropy", "chosen_accuracy"), _estimate
        ),
        **dict.fromkeys(
            ("noise_curve", "training_losses", "validation_losses", "validation_brier"), _curve
        ),
        **dict.fromkeys(
            (
                "training_flops", "training_seconds", "brier_lm", "autoencoder_accuracy",
                "sampling_flops", "microseconds_per_token", "draws_per_chunk", "unsettled",
            ),
            _number,
        ),
    }  # fmt: skip
    values = {name: read.get(name, _as_it_is)(value) for name, value in content.items()}
    return RunResult(**values)


def _variant(content: dict[str, Any]) -> VariantResult:
    runs = tuple(_run(run) for run in content.pop("runs"))
    failures = tuple(Failure(**failure) for failure in content.pop("failures"))
    return VariantResult(runs=runs, failures=failures, **content)


def _as_it_is(value: Any) -> Any:
    return value
