"""What one run found, in a form that survives as JSON."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calmkit.foreign_data import ForeignDataError, parse_json
from calmkit.metrics import DocumentScores, Estimate

__all__ = ["Curve", "RunResult", "plain", "run_from_json", "strict_json", "understood"]


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
        return strict_json(plain(self))

    @staticmethod
    def from_json(text: str) -> "RunResult":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        with understood():
            return run_from_json(parse_json(text))


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Whatever is unexpected in a file becomes one named error."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ForeignDataError) as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(".")
        raise ValueError(
            f"results must be JSON as written by `calmkit compare`; got {said}."
        ) from error


def strict_json(content: Any) -> str:
    """JSON without NaN."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)


def plain(node: Any) -> Any:
    """Dataclasses as mappings, numbers that are not finite as None."""
    if isinstance(node, DocumentScores):
        return node.to_dict()
    if dataclasses.is_dataclass(node):
        return {entry.name: plain(getattr(node, entry.name)) for entry in dataclasses.fields(node)}
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
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


def run_from_json(content: dict[str, Any]) -> RunResult:
    """Read what `plain` gave of a run; schema 3 had one field more."""
    content = {name: value for name, value in content.items() if name != "untrained_brier"}
    read: dict[str, Callable[[Any], Any]] = {
        "documents": DocumentScores.from_dict,
        **dict.fromkeys(("brier", "brier_places", "unigram_brier"), _estimates),
        **dict.fromkeys(
            ("energy_score", "cross_entropy", "chosen_accuracy"), _estimate
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


def _as_it_is(value: Any) -> Any:
    return value
