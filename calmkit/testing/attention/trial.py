"""An attention backend under test, and attention written plainly."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.testing.contract import expect
from calmkit.testing.trial import Trial

__all__ = ["MASKS", "AttentionTrial", "Case", "cannot_run", "plain_attention"]

Case = tuple[Tensor, Tensor, Tensor, AttentionMask]

# The most precise first: it tells rounding from mistakes. What is accepted as rounding.
_DTYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
_PARAMETERS = ["q", "k", "v", "mask", "scale", "dropout"]


def _documents(rows: int, length: int, number: int) -> list[list[int]]:
    """Lengths of documents that fill each row, other ones in the next row."""
    cuts = [1 + (number + row) % length for row in range(rows)]
    return [[cut, length - cut] if cut < length else [length] for cut in cuts]


# Each from the rows, the queries, the keys, and a number that varies the lengths.
MASKS: dict[str, Callable[[int, int, int, int], AttentionMask]] = {
    "full": lambda rows, q_len, kv_len, number: AttentionMask.full(),
    "causal": lambda rows, q_len, kv_len, number: AttentionMask.causal(),
    "window": lambda rows, q_len, kv_len, number: AttentionMask.causal(1 + number % 3),
    "packed": lambda rows, q_len, kv_len, number: AttentionMask.packed(
        _documents(rows, kv_len, number)
    ),
    "packed, window": lambda rows, q_len, kv_len, number: AttentionMask.packed(
        _documents(rows, kv_len, number), window=2
    ),
    "cached": lambda rows, q_len, kv_len, number: AttentionMask.cached(
        torch.tensor([q_len + (number + row) % (kv_len - q_len + 1) for row in range(rows)])
    ),
    "cached, window": lambda rows, q_len, kv_len, number: AttentionMask.cached(
        torch.tensor([q_len + (number + row) % (kv_len - q_len + 1) for row in range(rows)]),
        window=2,
    ),
}


class AttentionTrial(Trial):
    """Takes a backend from a factory: a function, or one with the function that refuses calls.

    The factory may also be the backend itself. Calls are made on the CPU in float64; where the
    backend refuses that, in float32, bfloat16 and float16, and then on a GPU, if there is one.
    """

    @functools.cached_property
    def backend(self) -> tuple[Callable[..., Tensor], Callable[..., str | None]]:
        """What computes, and what says why it cannot compute a call."""
        made = self.factory if _is_backend(self.factory) else self.call(self.factory)
        run, refusal = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        expect(
            _is_backend(run) and (refusal is None or callable(refusal)),
            seen=f"a {type(made).__name__}",
            expected="a function of (q, k, v, mask, *, scale, dropout), or a pair of it and one "
            "of (q, k, v, mask, *, dropout), as for calmkit.attention.register_backend",
            cause="the factory returns something else, or parameters have other names",
        )
        return run, refusal or (lambda q, k, v, mask, *, dropout: None)

    @functools.cached_property
    def place(self) -> tuple[str, torch.dtype] | str:
        """Device and dtype of the first plain causal call that is not refused; else why it is."""
        reasons = []
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for dtype in _DTYPES:
                case = self.case("causal", dtype=dtype, device=device)
                if (reason := self.refused(case)) is None:
                    return device, dtype
                reasons.append(reason)
        return f"it refuses a plain causal call: {reasons[0]}"

    @property
    def tolerance(self) -> float:
        """What is rounding in the dtype of the calls."""
        return _DTYPES[torch.float64 if isinstance(self.place, str) else self.place[1]]

    def case(
        self,
        mask: str,
        rows: int = 2,
        q_len: int = 4,
        more: int = 0,
        *,
        heads: Sequence[int] = (2, 2),
        head_dim: int = 8,
        number: int = 1,
        dtype: torch.dtype | None = None,
        device: str | None = None,
    ) -> Case:
        """Queries, keys, values and a mask; a padded cache has two keys more than are used."""
        if device is None:
            device, usual = ("cpu", torch.float64) if isinstance(self.place, str) else self.place
            dtype = usual if dtype is None else dtype
        kv_len = q_len + more + (2 if mask.startswith("cached") else 0)
        generator = self.generator(number)

        def drawn(length: int, heads: int) -> Tensor:
            x = torch.randn(rows, length, heads, head_dim, generator=generator)
            return x.to(device, dtype)

        made = MASKS[mask](rows, q_len, kv_len, number)
        if made.key_lengths is not None:
            made = AttentionMask.cached(made.key_lengths.to(device), made.window)
        return drawn(q_len, heads[0]), drawn(kv_len, heads[1]), drawn(kv_len, heads[1]), made

    def refused(self, case: Case, *, dropout: float = 0.0) -> str | None:
        """Why the backend cannot run a call; None if it can."""
        return self.call(self.backend[1], *case, dropout=dropout)

    def attend(self, case: Case, *, scale: float | None = None, dropout: float = 0.0) -> Tensor:
        """What the backend computes."""
        return self.call(self.backend[0], *case, scale=scale, dropout=dropout)


def plain_attention(case: Case, scale: float | None = None) -> Tensor:
    """The formula in float64, one head of one row at a time; zeros where no key is seen."""
    q, k, v = (x.double() for x in case[:3])
    rows, q_len, heads, head_dim = q.shape
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    visible = case[3].dense(q_len, k.shape[1], q.device).expand(rows, -1, -1)
    found = []
    for row in range(rows):
        for head in range(heads):
            group = head * k.shape[2] // heads
            scores = scale * q[row, :, head] @ k[row, :, group].T
            weights = scores.masked_fill(~visible[row], -torch.inf).exp()
            total = weights.sum(dim=-1, keepdim=True)
            found.append(weights / torch.where(total > 0, total, 1.0) @ v[row, :, group])
    return torch.stack(found).view(rows, heads, q_len, head_dim).transpose(1, 2)


def cannot_run(*masks: str, **shape: Any) -> Callable[[AttentionTrial], str | None]:
    """Why a contract does not apply: the backend refuses the calls that it is about.

    Args:
        masks: Kinds of masks, of which it must run one.
        shape: Of the calls, as for `AttentionTrial.case`.
    """

    def why(trial: AttentionTrial) -> str | None:
        if isinstance(trial.place, str):
            return trial.place
        reasons = [trial.refused(trial.case(mask, **shape)) for mask in masks]
        if None in reasons or not reasons:
            return None
        return f"it refuses {' and '.join(masks)} masks: {reasons[0]}"

    return why


def _is_backend(value: object) -> bool:
    if not callable(value):
        return False
    try:
        return list(inspect.signature(value).parameters)[:6] == _PARAMETERS
    except (TypeError, ValueError):
        return False
