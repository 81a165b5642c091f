"""Conversion of tensors from published names to calmkit's and back, by the tables of `names`."""

import warnings
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from .errors import CheckpointFormatError, CheckpointWarning
from .files import Weights
from .names import Row

__all__ = ["calmkit_state", "published_tensors"]


def calmkit_state(module: nn.Module, weights: Weights, rows: Sequence[Row]) -> dict[str, Tensor]:
    """A module's state from a file, copied, in the precision of the file.

    Args:
        module: A module of the right sizes, perhaps on the meta device; it is not changed.
        weights: The tensors of the file.
        rows: The names of the module's tensors.

    Raises:
        CheckpointFormatError: If a tensor is missing, has another shape, or differs from its
            duplicate, or an embedding is not finite.
    """
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    state = {}
    for row in rows:
        widths = [shapes[name][-1] for name in row.ours]
        whole = _checked(weights, row, (*shapes[row.ours[0]][:-1], sum(widths)))
        for name, part in zip(row.ours, whole.split(widths, dim=-1), strict=True):
            state[name] = part.detach().clone(memory_format=torch.contiguous_format)
    return state


def published_tensors(
    module: nn.Module, rows: Sequence[Row], *, without: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a module by published name; the names of one row share one tensor.

    Args:
        module: The module.
        rows: The names of its tensors.
        without: State that the format cannot store and that may be left out.

    Raises:
        ValueError: If the module has other weights, too.
    """
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    others = state.keys() - {name for row in rows for name in row.ours} - set(without)
    if others:
        raise ValueError(
            f"{type(module).__name__} must have no weights but those of the published network to "
            f"be saved; it has {sorted(others)[0]}."
        )
    tensors = {}
    for row in rows:
        parts = [state[name] for name in row.ours]
        tensor = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=-1)
        tensors |= dict.fromkeys(row.published, tensor)
    return tensors


def _checked(weights: Weights, row: Row, shape: Sequence[int]) -> Tensor:
    names = [name for name in row.published if name in weights.tensors]
    first = weights.get(names[0] if names else row.published[0])
    for name in names:
        tensor = weights.tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise CheckpointFormatError(
                f"{weights.named(name)} must have shape {tuple(shape)}, which follows from the "
                f"config; got {tuple(tensor.shape)}."
            )
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise CheckpointFormatError(
                f"{weights.named(name)} must hold floating-point numbers, all of them; got "
                f"{tensor.dtype}, {tensor.layout}."
            )
        if name == names[0] and row.first_counts:
            _check_finite(weights, name, tensor)
        if _same(first, tensor):
            continue
        if not row.first_counts:
            raise CheckpointFormatError(
                f"{weights.named(name)} must be equal to {names[0]}: in the published network "
                "both are one tensor. It is unclear which is meant; remove the wrong one."
            )
        warnings.warn(
            f"{weights.named(name)} is not read, since it differs from {names[0]}, to which the "
            "published network ties it. Saving as safetensors may have left uninitialised memory "
            "there; remove the key to be rid of this warning.",
            CheckpointWarning,
            stacklevel=2,
        )
    return first


def _check_finite(weights: Weights, name: str, tensor: Tensor) -> None:
    """Refuse a tensor with values that are not finite; its duplicates are not read."""
    count = int((~tensor.isfinite()).sum())
    if count:
        raise CheckpointFormatError(
            f"{weights.named(name)} must be finite; {count} of {tensor.numel()} values are NaN or "
            "infinite. Get the checkpoint again, or save it again where it was trained."
        )


def _same(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype:
        return False
    # Compared bitwise, so that a NaN is equal to itself.
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))
