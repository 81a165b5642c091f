"""Which kernel computes attention: named backends, the choice of `auto`, and your own.

A backend is two functions: one computes, the other says why it cannot compute a given call.
`auto` takes xformers for tensors on a GPU if it can run the call, else PyTorch's own kernels,
and warns once for each reason; a backend asked for by name never gives way to another.
"""

import warnings
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from calmkit.private_torch import runs_while_tracing

from .mask import AttentionMask
from .reference import reference_attention
from .sdpa import sdpa_attention
from .xformers import xformers_attention, xformers_missing, xformers_refusal

__all__ = [
    "AttentionBackendError",
    "AttentionFunction",
    "RefusalFunction",
    "available_backends",
    "check_backend",
    "choose_backend",
    "register_backend",
]


class AttentionBackendError(RuntimeError):
    """A backend that was asked for by name cannot run a call; says why and what to do."""


@runtime_checkable
class AttentionFunction(Protocol):
    """Computes attention; arguments and result are those of `attention`."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: AttentionMask,
        *,
        scale: float | None,
        dropout: float,
    ) -> Tensor:
        """Attend."""
        ...  # fmt: skip


@runtime_checkable
class RefusalFunction(Protocol):
    """Says why a backend cannot run a call; None if it can."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, dropout: float
    ) -> str | None:
        """A reason that completes the sentence "cannot run this call: ..."."""
        ...


@dataclass(frozen=True)
class _Backend:
    run: AttentionFunction
    refusal: RefusalFunction | None = None


_BACKENDS = {
    "xformers": _Backend(xformers_attention, xformers_refusal),
    "sdpa": _Backend(sdpa_attention),
    "reference": _Backend(reference_attention),
}
_WARNED: set[str] = set()


def register_backend(
    name: str, run: AttentionFunction, *, refusal: RefusalFunction | None = None
) -> None:
    """Add a backend of your own, to be asked for by its name.

    Args:
        name: Not yet taken.
        run: Computes attention. It gets the mask as it is: `mask.dense` defines it.
        refusal: Says why it cannot run a call; None if it can run every one.

    Raises:
        ValueError: If the name is taken.
    """
    if name == "auto" or name in _BACKENDS:
        raise ValueError(f"name must be new; {name!r} is taken.")
    _BACKENDS[name] = _Backend(run, refusal)


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that can be asked for with tensors on a device.

    Args:
        device: Where queries, keys and values would be.
    """
    missing = xformers_missing(torch.device(device)) is not None
    return tuple(name for name in _BACKENDS if not (missing and name == "xformers"))


def check_backend(name: str) -> None:
    """Refuse a name that nobody has registered.

    Raises:
        ValueError: If there is no such backend.
    """
    if name != "auto" and name not in _BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(_BACKENDS)}; got {name!r}.")


def choose_backend(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, dropout: float
) -> AttentionFunction:
    """The function that computes this call.

    Raises:
        AttentionBackendError: If a backend asked for by name cannot run it.
        ValueError: If there is no such backend.
    """
    check_backend(name)
    if name == "auto" and q.device.type != "cuda":
        return sdpa_attention
    backend = _BACKENDS["xformers" if name == "auto" else name]
    reason = None if backend.refusal is None else backend.refusal(q, k, v, mask, dropout=dropout)
    if reason is None:
        return backend.run
    if name == "auto":
        _warn_once(f"attention takes PyTorch's kernels instead of xformers: {reason}")
        return sdpa_attention
    raise AttentionBackendError(
        f"attention backend {name!r} cannot run this call: {reason}. Use backend='sdpa' or 'auto'."
    )


@runs_while_tracing
def _warn_once(text: str) -> None:
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, stacklevel=4)
