r"""An exponential moving average (EMA) of the trained weights, kept beside them.

After the update of step t, counted from 0,

    average <- d_t average + (1 - d_t) weights,    d_t = min(decay, (1 + t) / (10 + t)).

The average covers about the last 1 / (1 - decay) steps. It removes the noise that single batches
put into the weights, as a lower learning rate would, and is usually better than the last weights
while the rate is high. After a rate that decays to 0 there is little left to gain. The ramp of d_t
lets the random weights of the beginning fade in any run: their share after T steps is of the order
of T^-9 as long as the ramp lasts.

Averages are kept in float32 at least: with decay 0.9999 the change of a step is lost in bfloat16.
They are never read by the training itself, whose numbers do not depend on them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from calmkit.cluster import copy_whole, local

__all__ = ["AveragedWeights"]


class AveragedWeights:
    """Averages of a module's parameters that have `requires_grad`.

    The parameters may be sharded (`DTensor`); the averages then are, too.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Begin with the current weights.

        Args:
            module: The module that is trained.
            decay: In (0, 1).
        """
        self.decay = decay
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._averages = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self._trained.items()
        }

    def of_whole(self, module: nn.Module) -> "AveragedWeights":
        """The averages of sharded parameters, gathered; every process must call it.

        Args:
            module: The same module with whole parameters.
        """
        gathered = AveragedWeights(module, self.decay)
        own, others = self._averages, gathered._averages
        copy_whole((average, others[name]) for name, average in own.items())
        return gathered

    def decay_at(self, step: int) -> float:
        """The decay after the update of a step, d_t."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step into the average."""
        # Each shard is averaged by itself: `DTensor`s would do the same, far more slowly.
        averages = [local(average) for average in self._averages.values()]
        pairs = zip(averages, self._trained.values(), strict=True)
        weights = [local(p.detach()).to(average.dtype) for average, p in pairs]
        get_ema_multi_avg_fn(self.decay_at(step))(averages, weights, 0)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Replace the weights by the averages."""
        for name, p in self._trained.items():
            p.copy_(self._averages[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the module has the averaged weights; its own are restored after it."""
        own = {name: p.detach().clone() for name, p in self._trained.items()}
        self.copy_to_module()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._trained.items():
                    p.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name of the parameter; they share memory with this object."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, averages: Mapping[str, Tensor]) -> None:
        """Continue with saved averages.

        Args:
            averages: From `state_dict`.

        Raises:
            ValueError: If names or shapes are not those of the trained parameters.
        """
        shapes = {name: average.shape for name, average in self._averages.items()}
        given = {name: average.shape for name, average in averages.items()}
        if wrong := [n for n in {**shapes, **given} if shapes.get(n) != given.get(n)]:
            raise ValueError(
                "averages must have the names and shapes of the trained parameters; "
                f"{wrong[0]!r} differs."
            )
        for name, average in self._averages.items():
            average.copy_(averages[name])
