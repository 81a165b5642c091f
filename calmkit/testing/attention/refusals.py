"""Refusals, dropout, repetition and compilation of a backend."""

import torch

from calmkit.testing.attention.trial import MASKS, AttentionTrial, cannot_run
from calmkit.testing.chance import LIMIT
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import Broken, contract, expect
from calmkit.testing.expecting import expect_same

__all__ = [
    "compiles",
    "dropout_keeps_the_mean",
    "refusals_are_reasons",
    "without_dropout_it_is_deterministic",
]


@contract(applies=cannot_run())
def refusals_are_reasons(trial: AttentionTrial) -> None:
    """Each call either succeeds or is refused in advance with a reason."""
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    cases = [
        (mask, dtype, heads, dropout)
        for mask in MASKS
        for dtype in dtypes
        for heads in ((2, 2), (4, 2))
        for dropout in (0.0, 0.5)
    ]
    for mask, dtype, heads, dropout in cases:
        case = trial.case(mask, dtype=dtype, heads=heads, head_dim=5, more=1)
        reason = trial.refused(case, dropout=dropout)
        where = f"a {mask} mask in {dtype}, {heads[0]} heads on {heads[1]}, dropout {dropout}"
        expect(
            reason is None or (isinstance(reason, str) and reason),
            seen=f"{where}: refusal returned {reason!r}",
            expected='None, or words that complete "cannot run this call: ..."',
            cause="a bool is returned, or an empty text",
        )
        if reason is not None:
            continue
        try:
            trial.attend(case, dropout=dropout)
        except Exception as error:  # a kernel that does not fit raises anything
            raise Broken(
                seen=f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
                expected="a result, or a reason from the refusal that belongs to the backend",
                cause="the refusal does not know of this limit of the kernel",
            ) from error


@contract(applies=cannot_run())
def without_dropout_it_is_deterministic(trial: AttentionTrial) -> None:
    """Without dropout, repeated calls are equal, and torch's global generator is not read."""
    for mask in MASKS:
        case = trial.case(mask)
        if trial.refused(case) is not None:
            continue
        before = torch.get_rng_state()
        first, again = (trial.attend(case) for _ in range(2))
        cause = "weights are dropped whatever `dropout` is, or something is kept between calls"
        than = "of the same call before"
        expect_same(again, first, what="the result", than=than, cause=cause, rtol=0.0, atol=0.0)
        seen = "the state of torch's global generator was moved"
        unmoved = torch.equal(torch.get_rng_state(), before)
        expect(unmoved, seen=seen, expected="no random number", cause=cause)


def _refuses_dropout(trial: AttentionTrial) -> str | None:
    return cannot_run()(trial) or trial.refused(trial.case("causal"), dropout=0.5)


@contract(applies=_refuses_dropout)
def dropout_keeps_the_mean(trial: AttentionTrial) -> None:
    """With dropout, weights are dropped independently, and their mean is kept."""
    rows = 2_000
    q, k, v, mask = trial.case("causal", rows=rows, q_len=3, head_dim=8)
    # With values of one a result is the sum of the weights: one on average.
    sums = trial.attend((q, k, torch.ones_like(v), mask), dropout=0.5)[..., 0].double()
    worst = float((sums.mean(dim=0) - 1).abs().max())
    # Each has a variance of the sum of w^2, which is one at most.
    limit = LIMIT / rows**0.5 + trial.tolerance
    expect(
        worst < limit,
        seen=f"the mean sum of the weights is off by {worst:.3f} over {rows} rows",
        expected=f"1, within {limit:.3f}",
        cause="weights that are kept are not divided by 1 - dropout",
    )
    alike = float((sums[:, 0] - 1).abs().min())
    expect(
        alike > 0.5 and float(sums[:, 0].max()) > 1.5,
        seen=f"sums of the only weight of a first query from {float(sums[:, 0].min()):.3f} to "
        f"{float(sums[:, 0].max()):.3f}",
        expected="0 where it is dropped and 2 where it is kept",
        cause="dropout is not used, or another part is dropped than the weights",
    )


@contract(applies=cannot_run())
def compiles(trial: AttentionTrial) -> None:
    """Under a causal mask it is one graph for torch.compile, with the same gradient."""
    run, _ = trial.backend
    q, k, v, mask = trial.case("causal")
    name = getattr(run, "__name__", type(run).__name__)
    reason = trial.refused((q.requires_grad_(), k, v, mask))
    with torch.set_grad_enabled(reason is None):
        expect_one_graph(
            trial,
            lambda: run(q, k, v, mask, scale=None, dropout=0.0),
            name=name,
            wrt=q if reason is None else None,
        )
