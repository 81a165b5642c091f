"""What one run found; `json_converter` writes and reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from calmkit.metrics import DocumentScores, Estimate

__all__ = ["Curve", "RunResult"]


Curve = tuple[tuple[int, float], ...]
"""Steps done, and a number."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One model, trained with one seed and measured.

    What is not known is None: how a model was trained that was only measured, or the operations of
    one whose work depends on the data.

    Attributes:
        seed: The seed of training.
        steps: Optimiser steps.
        trained_tokens: Tokens of text in the batches of those steps.
        training_flops: Operations of training backbone and head, by accounting.
        training_seconds: Time of its training steps.
        brier_lm: 100 times the geometric mean of Brier-1..4; 0 where one is not positive.
        brier: Brier-1..4, in per cent.
        documents: Sums of every score over the documents.
        baselines: Brier-1..4 of counting alone, at the same places: token frequencies of the
            training text (`unigram`) and its tables of n-grams (`bigram`, `trigram`), by name.
        energy_score: Of drawn latents against the posteriors; None for a softmax model.
        cross_entropy: Nats per token of a softmax model; None for others.
        autoencoder_accuracy: Share of held-out tokens that the autoencoder restores; None without.
        noise_curve: Size of noise on a latent, in spreads of all latents, and the share restored.
        evaluations_per_sample: Network evaluations for one latent; None where it depends.
        sampling_flops: Operations per new token with plain sampling.
        microseconds_per_token: Time of a generated token, with the variant's sampler.
        draws_per_chunk: Candidates the sampler took for a chunk.
        unsettled: Share of chunks for which they did not suffice.
        chosen_accuracy: Share of held-out tokens that a chosen chunk has right, in per cent.
        sample_text: A short generated text.
        validation_losses: Steps and its own loss on held-out text; not comparable between heads.
        validation_brier: Steps and Brier-1 on a few held-out rows, in per cent.
        protocol: The evaluation in a sentence.
    """

    seed: int | None
    steps: int | None
    trained_tokens: int | None
    training_flops: float | None
    training_seconds: float | None
    brier_lm: float
    brier: tuple[Estimate, ...]
    documents: DocumentScores
    baselines: Mapping[str, tuple[Estimate, ...]] | None
    energy_score: Estimate | None
    cross_entropy: Estimate | None
    autoencoder_accuracy: float | None
    noise_curve: tuple[tuple[float, float], ...]
    evaluations_per_sample: int | None
    sampling_flops: float | None
    microseconds_per_token: float
    draws_per_chunk: float
    unsettled: float
    chosen_accuracy: Estimate | None
    sample_text: str
    validation_losses: Curve
    validation_brier: Curve
    protocol: str
