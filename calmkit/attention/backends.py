"""Attention backends: the built-in ones, custom ones, and the choice of `auto`.

A backend consists of two functions: one computes attention, the other returns the reason why a
given call is not supported. On a GPU, `auto` uses xformers for packed documents, padded caches and
windows, whose masks `sdpa` needs as tensors; where xformers cannot run packed documents, as in
compiled code, it uses `varlen`. It uses `sdpa` for plain attention, where it is faster (1.7 to 1.9
times on an H200, rows of 2,048 to 16,384), and for what neither supports. Outside of compiled code
there is one warning for each reason. A backend requested by name is never replaced by another.
"""

import warnings
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from calmkit.private_torch import runs_while_tracing

from .mask import AttentionMask
from .reference import reference_attention
from .sdpa import needs_no_mask, sdpa_attention
from .varlen import varlen_attention, varlen_missing, varlen_refusal
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
    """A backend requested by name cannot run a call; the message has the reason and a remedy."""


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
        """Compute attention; a query that sees no key returns zeros."""
        ...  # fmt: skip


@runtime_checkable
class RefusalFunction(Protocol):
    """Returns the reason why a backend cannot run a call; None if it can."""

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
    "varlen": _Backend(varlen_attention, varlen_refusal),
    "sdpa": _Backend(sdpa_attention),
    "reference": _Backend(reference_attention),
}
_WARNED: set[str] = set()


def register_backend(
    name: str, run: AttentionFunction, *, refusal: RefusalFunction | None = None
) -> None:
    """Add a custom backend, to be requested by its name.

    Args:
        name: A new name.
        run: Computes attention. It receives the `AttentionMask`, which `mask.dense` defines.
        refusal: Returns the reason why it cannot run a call; None if it can run all calls.

    Raises:
        ValueError: If the name is taken.
    """
    if name == "auto" or name in _BACKENDS:
        raise ValueError(f"name must be new; {name!r} is taken.")
    _BACKENDS[name] = _Backend(run, refusal)


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names of the backends that work on a device.

    Args:
        device: Device of queries, keys and values.
    """
    device = torch.device(device)
    missing = {"xformers": xformers_missing(device), "varlen": varlen_missing(device)}
    return tuple(name for name in _BACKENDS if missing.get(name) is None)


def check_backend(name: str) -> None:
    """Refuse a name that is not registered."""
    if name != "auto" and name not in _BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(_BACKENDS)}; got {name!r}.")


def choose_backend(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, dropout: float
) -> AttentionFunction:
    """The function that computes this call.

    Raises:
        AttentionBackendError: If a backend requested by name cannot run it.
        ValueError: If there is no such backend.
    """
    check_backend(name)
    if name != "auto":
        reason = _refusal(name, q, k, v, mask, dropout)
        if reason is not None:
            raise AttentionBackendError(
                f"attention backend {name!r} cannot run this call: {reason}. "
                "Use backend='sdpa' or 'auto'."
            )
        return _BACKENDS[name].run
    if q.device.type != "cuda" or needs_no_mask(mask, q.shape[1], k.shape[1]):
        return sdpa_attention
    reason = _refusal("xformers", q, k, v, mask, dropout)
    if reason is None:
        return _BACKENDS["xformers"].run
    if not torch.compiler.is_compiling():  # compiled, xformers lacks what nobody can mend
        _warn_once(f"attention takes PyTorch's kernels instead of xformers: {reason}")
    if _refusal("varlen", q, k, v, mask, dropout) is None:
        return _BACKENDS["varlen"].run
    return sdpa_attention


def _refusal(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, dropout: float
) -> str | None:
    refusal = _BACKENDS[name].refusal
    return None if refusal is None else refusal(q, k, v, mask, dropout=dropout)


@runs_while_tracing
def _warn_once(text: str) -> None:
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, stacklevel=4)
