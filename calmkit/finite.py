"""Refusal of NaN and infinity, with the tensor named and the values counted.

Values are read where that is free: eagerly, on the CPU. Elsewhere reading one would wait for the
device.
"""

from torch import Tensor

from calmkit.private_torch import has_values
from calmkit.typing import checks_are_on

__all__ = ["NonFiniteError", "check_finite", "is_readable"]


class NonFiniteError(ValueError):
    """A tensor holds NaN or infinity where only finite numbers have a meaning."""


def check_finite(**tensors: Tensor) -> None:
    """Refuse NaN and infinity in tensors whose values can be read for free.

    Raises:
        NonFiniteError: If a value is not finite; names the tensor and counts the values.
    """
    for name, tensor in tensors.items():
        if not is_readable(tensor):
            continue
        low, high = tensor.detach().aminmax()
        if not (low.isfinite() and high.isfinite()):
            count = int((~tensor.isfinite()).sum())
            raise NonFiniteError(
                f"{name} must be finite; {count} of {tensor.numel()} values are NaN or infinite."
            )


def is_readable(tensor: Tensor) -> bool:
    """Whether values can be read without waiting for a device, and checks are on."""
    return (
        checks_are_on()
        and tensor.device.type == "cpu"
        and tensor.numel() > 0
        and has_values(tensor)
    )
