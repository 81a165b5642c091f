"""Operations of a model, where they can be told."""

from dataclasses import dataclass

from calmkit.models import CALM, LanguageModel, TokenLM

from .chunk_model import account
from .results import Account
from .token_lm import account_token_lm

__all__ = ["TokenCosts", "account_of", "costs_per_token"]


@dataclass(frozen=True)
class TokenCosts:
    """Operations per token of text.

    Attributes:
        training: Forward and backward pass.
        sampling: One draw for each chunk.
    """

    training: float
    sampling: float


def costs_per_token(model: LanguageModel, positions: int) -> TokenCosts | None:
    """Costs in rows of so many positions; None where they depend on the data."""
    try:
        found = account_of(model, positions)
    except ValueError:
        return None
    return TokenCosts(sum(found.training_flops.values()), sum(found.inference_flops().values()))


def account_of(model: LanguageModel, positions: int) -> Account:
    """The account of either kind of model.

    Raises:
        ValueError: If the work of a sample depends on the data, or it is another kind of model.
    """
    if isinstance(model, TokenLM):
        return account_token_lm(model, context=positions)
    if isinstance(model, CALM):
        return account(model, context=positions)
    raise ValueError(f"model must be a CALM or a TokenLM to have an account; got {type(model)}.")
