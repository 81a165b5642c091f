"""AdamW as language models are trained with it: weight decay on matrices only.

Biases, gains of norms and other vectors are not pulled towards zero: their scale is not
redundant, and there are too few of them to overfit. Any other `torch.optim.Optimizer` can be
given to `fit` in its place, and is used as it is.
"""

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW

__all__ = ["MatrixDecayAdamW"]


class MatrixDecayAdamW(AdamW):
    """AdamW whose weight decay spares parameters of fewer than two axes.

    The defaults are the CALM paper's. It is a class, and not a function that returns an
    `AdamW`, because a configuration can set the arguments of a class.

    Args:
        params: The parameters to train.
        lr: Peak learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay of parameters of two or more axes.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        params = list(params)
        matrices = [p for p in params if p.dim() >= 2]
        vectors = [p for p in params if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        super().__init__([g for g in groups if g["params"]], lr=lr, betas=betas, eps=eps)
