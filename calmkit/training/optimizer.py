"""AdamW with weight decay on matrices only, as is usual for language models.

Biases, gains of norms and other vectors are not decayed: their scale is not redundant, and there
are too few of them to overfit. On CPUs and CUDA devices a step is PyTorch's fused one.

`fit` accepts any other `torch.optim.Optimizer` that takes its step from dense gradients without a
closure. It refuses `LBFGS`, which computes the loss several times per step, `SparseAdam`, and
`Muon` unless all parameters are matrices.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.optim import AdamW, Optimizer, SparseAdam

__all__ = ["MatrixDecayAdamW", "build_optimizer"]


class MatrixDecayAdamW(AdamW):
    """AdamW without weight decay for parameters with fewer than two axes.

    The defaults are the CALM paper's. It is a class rather than a function that returns an
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
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        super().__init__(
            [g for g in groups if g["params"]], lr=lr, betas=betas, eps=eps, fused=fused
        )


def build_optimizer(
    factory: Callable[[Iterable[nn.Parameter]], Optimizer], trained: Mapping[str, nn.Parameter]
) -> Optimizer:
    """Build an optimiser over parameters, and check that `fit` supports it.

    Args:
        factory: A class of `torch.optim`, or any callable with the same arguments.
        trained: The parameters to train, by name.

    Raises:
        ValueError: If it refuses its settings or a parameter, leaves one out, or needs more than
            dense gradients and a learning rate.
    """
    try:
        optimizer = factory(trained.values())
    except ValueError:
        factory([nn.Parameter(torch.zeros(1, 1))])  # raises if its settings are the cause
        for key, p in trained.items():
            try:
                factory([p])
            except ValueError as error:
                raise _unfit(f"take every parameter; it refuses {key!r}: {error}") from error
        raise
    name = type(optimizer).__name__
    step = inspect.signature(type(optimizer).step).parameters.get("closure")
    if step is not None and step.default is inspect.Parameter.empty:
        raise _unfit(f"step without a closure; {name} computes the loss itself")
    if isinstance(optimizer, SparseAdam):
        raise _unfit(f"take dense gradients; {name} does not")
    groups = optimizer.param_groups
    if any("lr" not in group for group in groups):
        raise _unfit(f'have a learning rate "lr" in each group; {name} has a group without one')
    if any(group.get("differentiable", False) for group in groups):
        raise _unfit(f"be built with differentiable=False; got {name} with True")
    held = {id(p) for group in groups for p in group["params"]}
    if left_out := [key for key, p in trained.items() if id(p) not in held]:
        raise _unfit(
            f"hold every parameter with requires_grad; {name} lacks {left_out[0]!r}. Freeze "
            "parameters that are not to be trained"
        )
    if len(held) > len({id(p) for p in trained.values()}):
        raise _unfit(f"hold only the given parameters; {name} holds others")
    return optimizer


def _unfit(rule: str) -> ValueError:
    return ValueError(f"optimizer must {rule.rstrip('.')}. Use another one, such as AdamW.")
