r"""The features that a person can name: those that are active where one token stands.

With A_f the vectors in which feature f is active, and B_kv those whose chunk has token v at place
k, a feature is as clear as its best token:

    clarity(f) = max_kv F_1,    F_1 = 2 |A_f and B_kv| / (|A_f| + |B_kv|),

the harmonic mean of precision |A and B| / |A| and recall |A and B| / |B|. It is 1 if the feature
is active exactly where the token stands. Features of anything else (a topic, an inflection, two
tokens) score low, whatever they mean: a low clarity does not make a feature meaningless.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["BestToken", "clearest_features"]

# A best token of a few occurrences may be chance.
_LEAST_COMMON = 5
_COUNTS_AT_ONCE = 2**24


@dataclass(frozen=True)
class BestToken:
    """A feature and the token that it stands for.

    Attributes:
        feature: Index of the feature.
        place: Place k in the chunk, from 0.
        token: Id of token v.
        precision: Share of the active vectors whose chunk has the token there.
        recall: Share of the vectors with the token there in which it is active.
    """

    feature: int
    place: int
    token: int
    precision: float
    recall: float

    @property
    def clarity(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)


@typed
@torch.no_grad()
def clearest_features(
    activations: Float[Tensor, "points features"],
    tokens: Int[Tensor, "points chunk"],
    *,
    count: int = 10,
) -> list[BestToken]:
    """The clearest features, clearest first; one for each token at a place.

    Args:
        activations: Activations on held-out vectors.
        tokens: Their chunks.
        count: Largest number of features.
    """
    tokens = tokens.to(activations.device)
    active = activations > 0
    of_feature = active.sum(dim=0)
    found: list[BestToken] = []
    for place in range(tokens.shape[1]):
        known, index = tokens[:, place].unique(return_inverse=True)
        of_token = index.bincount()
        for some in torch.arange(active.shape[1], device=active.device).split(
            max(1, _COUNTS_AT_ONCE // len(known))
        ):
            both = torch.zeros(len(known), len(some), device=active.device)
            both.index_add_(0, index, active[:, some].to(both.dtype))
            score = 2 * both / (of_token[:, None] + of_feature[some])
            best = torch.where(both < _LEAST_COMMON, 0.0, score).max(dim=0)
            for column in best.values.nonzero()[:, 0].tolist():
                v, f = int(best.indices[column]), int(some[column])
                common = float(both[v, column])
                found.append(
                    BestToken(
                        f, place, int(known[v]),
                        common / float(of_feature[f]), common / float(of_token[v]),
                    )
                )  # fmt: skip
    return _distinct(sorted(found, key=lambda one: (-one.clarity, one.feature)), count)


def _distinct(ranked: list[BestToken], count: int) -> list[BestToken]:
    """The first of each feature, and of each token at a place."""
    chosen: list[BestToken] = []
    features, tokens = set(), set()
    for one in ranked:
        if one.feature not in features and (one.place, one.token) not in tokens:
            chosen.append(one)
            features.add(one.feature)
            tokens.add((one.place, one.token))
    return chosen[:count]
