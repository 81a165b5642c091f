r"""Comparing continuations of a prompt, without probabilities.

A continuation of T chunks is read by the model as it stands (teacher forcing). At each of its
chunks m draws of the model are compared with the true one by a proper score,

    score = 1/T sum_t S(draws at t, chunk t),    lower is better,

by default the Brier score of the chunk's tokens, 1 - 2 P(y) + sum_x P(x)^2, estimated without
bias from all pairs of draws. A scoring rule compares latents instead; it still tells continuations
apart where no draw equals any of them.

The standard error is that of the draws: of the mean over groups of them. It does not say how much
another continuation of the same kind would differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.finite import read_together
from calmkit.nn import evaluation_view
from calmkit.scoring import ScoringRule, brier_score

from .base import LanguageModel
from .calm import CALM
from .draws import draw_latents
from .generation import check_request

__all__ = ["RankedContinuation", "rank"]

_GROUPS = 8


@dataclass(frozen=True)
class RankedContinuation:
    """One continuation, and how it fares.

    Attributes:
        index: Its place among those that were given.
        score: Mean score of its chunks; lower is better.
        standard_error: Of the score, over the draws.
        chunks: How many chunks were scored.
    """

    index: int
    score: float
    standard_error: float
    chunks: int


def rank(
    model: LanguageModel,
    prompt: Sequence[int],
    continuations: Sequence[Sequence[int]],
    *,
    rule: ScoringRule | None = None,
    num_samples: int = 64,
    generator: torch.Generator | None = None,
) -> list[RankedContinuation]:
    """Score continuations of a prompt from samples of a model, and sort them.

    Args:
        model: Of either kind; a softmax model is scored from its samples too.
        prompt: Token ids; none empty. Its end is a chunk's edge.
        continuations: Token ids of each; of any lengths, none empty.
        rule: Scores latents of a `CALM` against the autoencoder's posterior; the Brier score of
            tokens if None.
        num_samples: Draws at each chunk; a multiple of 8.
        generator: Source of randomness; torch's global one if None.

    Returns:
        The continuations, the best (lowest score) first, with standard errors.

    Raises:
        ValueError: If a text is empty, an id is outside the vocabulary, there are too few draws,
            or a rule is given and the model has no latents or a continuation does not fill its
            last chunk.
        NonFiniteError: If states, latents or logits are not finite.
    """
    check_request([prompt, *continuations], model.vocab_size, 1, None)
    if rule is not None and not isinstance(model, CALM):
        raise ValueError(
            f"model must be a CALM for a rule to score its latents; got a {type(model).__name__}. "
            "Leave rule out."
        )
    least = _GROUPS * max(2, 0 if rule is None else rule.min_samples)
    if num_samples < least or num_samples % _GROUPS:
        raise ValueError(
            f"num_samples must be a multiple of {_GROUPS}, whose groups give the standard error, "
            f"and at least {least}; got {num_samples}."
        )
    if not prompt:
        raise ValueError("prompt must hold at least one token; start from a start token.")
    ranked, model = [], evaluation_view(model)
    with torch.no_grad(), read_together():
        for index, continuation in enumerate(continuations):
            if len(continuation) == 0:
                raise ValueError(f"continuations[{index}] must hold at least one token.")
            groups = _scores(model, prompt, continuation, rule, num_samples, generator)
            error = groups.mean(dim=1).std() / _GROUPS**0.5
            ranked.append(
                RankedContinuation(index, float(groups.mean()), float(error), groups.shape[1])
            )
    return sorted(ranked, key=lambda one: one.score)


def _scores(
    model: LanguageModel,
    prompt: Sequence[int],
    continuation: Sequence[int],
    rule: ScoringRule | None,
    num_samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Scores (groups, chunks) of the continuation's chunks, each from its own draws."""
    size = model.chunk_size
    begin, begin_real, _ = chunk_prompts([prompt], size, fill_id=0)
    # The last chunk may be cut short; what is left of it is not compared.
    text = torch.tensor([*continuation, *[0] * (-len(continuation) % size)]).view(1, -1, size)
    real = (torch.arange(text.numel()) < len(continuation)).view_as(text)
    device = model.backbone.device
    tokens = torch.cat([begin, text], dim=1).to(device)
    mask = torch.cat([begin_real, real], dim=1).to(device)
    start = begin.shape[1]
    states = model.backbone(model.input_encoder(tokens, mask))[0, start - 1 : -1]
    text, real = text[0].to(device), real[0].to(device)
    if rule is None or not isinstance(model, CALM):
        draws = model.draws(states, generator)(num_samples)
        # Places that hold no text are made equal in all draws.
        draws, text = (torch.where(real, x, 0) for x in (draws, text))
        return torch.stack([brier_score(part, text) for part in draws.chunk(_GROUPS)])
    if not bool(real.all()):
        raise ValueError(
            f"continuations must be whole chunks of {size} tokens to be scored as latents; one "
            f"has {len(continuation)} tokens. Cut it, or leave rule out."
        )
    latents = draw_latents(model.head, states, num_samples, generator)
    row = ChunkBatch(tokens, mask, ((tokens.shape[1],),))
    target = model.autoencoder.encode_rows(row)[0, start:]
    return torch.stack([rule.score(x, target, generator) for x in latents.chunk(_GROUPS)])
