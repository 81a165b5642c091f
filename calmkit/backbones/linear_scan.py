r"""Linear recurrence over positions, all positions at once.

    h_t = keep_t h_{t-1} + input_t

Two consecutive steps combine into one: (a, b) followed by (a', b') is (a a', a' b + b'). Doubling
the reach of each position log2(positions) times gives every h_t. There is no division and no
logarithm, so a `keep` of 0, which forgets the past, is exact.

Source: Hillis and Steele, "Data Parallel Algorithms", CACM 29 (1986), on the pairs of Blelloch,
"Prefix Sums and Their Applications" (1990), section 1.4.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from calmkit.typing import typed

__all__ = ["linear_scan"]


@typed
def linear_scan(
    keep: Float[Tensor, "batch positions state"],
    inputs: Float[Tensor, "batch positions state"],
    before: Float[Tensor, "batch state"] | None = None,
) -> Float[Tensor, "batch positions state"]:
    """h_t for every position, from h_{-1}.

    Args:
        keep: Factor on the previous state; in [0, 1], or products may overflow.
        inputs: The added term.
        before: h_{-1}; zeros if None.
    """
    if before is not None:
        # Prepend a position whose state is h_{-1}.
        keep = pad(keep, (0, 0, 1, 0))
        inputs = torch.cat([before[:, None], inputs], dim=1)
    reach = 1
    while reach < keep.shape[1]:
        # The steps that end at position t are joined with those that end at t - reach.
        inputs = inputs + keep * pad(inputs[:, :-reach], (0, 0, reach, 0))
        keep = keep * pad(keep[:, :-reach], (0, 0, reach, 0))
        reach *= 2
    return inputs if before is None else inputs[:, 1:]
