"""The paper's numbers for its six models, for comparison with an account.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, Table 1.
"""

from dataclasses import dataclass

from .results import Account

__all__ = ["PUBLISHED", "TRAINING_TOKENS", "PublishedModel", "Residuals", "residuals_to"]

# 250,000 steps of 2 million tokens.
TRAINING_TOKENS = 5e11


@dataclass(frozen=True)
class PublishedModel:
    """One line of the table.

    Attributes:
        parameters: Parameters without the autoencoder.
        training_flops: FLOPs of the whole training on `TRAINING_TOKENS` tokens.
        inference_flops: FLOPs per token of inference.
    """

    parameters: float
    training_flops: float
    inference_flops: float


PUBLISHED = {
    "transformer-s": PublishedModel(281e6, 6.6e20, 4.4e8),
    "transformer-m": PublishedModel(465e6, 11.9e20, 7.9e8),
    "transformer-l": PublishedModel(849e6, 22.5e20, 15.0e8),
    "calm-m": PublishedModel(371e6, 3.7e20, 2.9e8),
    "calm-l": PublishedModel(735e6, 7.7e20, 4.6e8),
    "calm-xl": PublishedModel(1.82e9, 19.5e20, 9.4e8),
}


@dataclass(frozen=True)
class Residuals:
    """Relative deviation of an account from a published model: `ours / published - 1`.

    Attributes:
        parameters: Deviation in the trained parameters.
        training_flops: Deviation in the FLOPs of the whole training.
        inference_flops: Deviation in the FLOPs per token of inference.
    """

    parameters: float
    training_flops: float
    inference_flops: float


def residuals_to(published: PublishedModel, ours: Account) -> Residuals:
    """Compare an account with a published model."""
    training = sum(ours.training_flops.values()) * TRAINING_TOKENS
    inference = sum(ours.inference_flops().values())
    return Residuals(
        ours.trained_parameters / published.parameters - 1,
        training / published.training_flops - 1,
        inference / published.inference_flops - 1,
    )
