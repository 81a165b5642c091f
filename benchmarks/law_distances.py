r"""How far drawn chunks, or probabilities, are from the laws that are the truth.

Of m draws after each of some texts, n_x of them the chunk x, and the law Q of the V^K chunks:

    total variation    1/2 sum_x |n_x / m - Q(x)|
    KL                 sum_x Q(x) log(Q(x) / q(x)),    q(x) = (n_x + 1/2) / (m + V^K / 2)
    Brier regret       sum_x (n_x / m - Q(x))^2, without bias: collisions among the draws instead
                       of (n_x / m)^2

as means over the texts, in nats. The draws are finite, so total variation is too high. KL is too
high as a rule, since chunks that were never drawn get a share all the same; a model that leaves
out what is likely can come out too low.
"""

from collections.abc import Sequence

import torch
from synthetic_language import entropy
from torch import Tensor

from calmkit.metrics import combine_brier

__all__ = ["brier_lm_of", "collisions", "count", "distances", "divergence"]


def distances(numbers: Tensor, law: Tensor) -> dict[str, float]:
    """Total variation, KL and Brier regret (times 100) of draws to laws, means over texts.

    Args:
        numbers: The numbers of the drawn chunks, (draws, texts).
        law: Q, (texts, chunks).
    """
    m, chunks = len(numbers), law.shape[1]
    counts = count(numbers, law)
    smooth = (counts + 0.5) / (m + chunks / 2)
    regret = (collisions(counts) - 2 * counts / m * law + law.square()).sum(dim=-1)
    return {
        "total_variation": float((counts / m - law).abs().sum(dim=-1).mean() / 2),
        "kl": divergence(law, smooth.log()),
        "brier_regret": 100 * float(regret.mean()),
    }


def divergence(law: Tensor, logs: Tensor) -> float:
    """KL of laws from log-probabilities, mean over texts."""
    return -float((entropy(law) + (law * logs).sum(dim=-1)).mean())


def count(numbers: Tensor, law: Tensor) -> Tensor:
    """How often each outcome of a law was drawn, from the numbers of the draws."""
    ones = torch.ones_like(numbers.T, dtype=law.dtype)
    return torch.zeros_like(law).scatter_add_(1, numbers.T, ones)


def collisions(counts: Tensor) -> Tensor:
    """Each outcome's share of equal pairs of draws; its mean is the squared probability."""
    m = counts.sum(dim=-1, keepdim=True)
    return counts * (counts - 1) / (m * (m - 1))


def brier_lm_of(scores: Sequence[Sequence[Tensor]]) -> float:
    """BrierLM of Brier-1 to 4, each a mean over places."""
    return float(combine_brier(torch.stack([torch.stack(list(v)).mean() for v in scores])))
