"""Checks that a function of a part compiles to one graph with the same result."""

from collections.abc import Callable

import torch
from torch import Tensor

from calmkit.testing.contract import Broken
from calmkit.testing.expecting import expect_same
from calmkit.testing.trial import Trial, seed_globally

__all__ = ["expect_one_graph"]


def expect_one_graph(
    trial: Trial, function: Callable[[], Tensor], *, name: str, wrt: Tensor | None = None
) -> None:
    """Compile with `fullgraph=True`, run, and compare with the plain function.

    Both draw from torch's global generator, since a graph accepts no other.

    Args:
        trial: Records the call.
        function: Calls the part.
        name: A description of the compiled function.
        wrt: An input of the function whose gradient must be the same too.
    """
    trial.last_call = f"torch.compile({name}, fullgraph=True)(...)"
    torch.compiler.reset()
    # The eager backend suffices: only the graph's completeness depends on the part.
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    seed_globally(trial.seed)
    want = function()
    seed_globally(trial.seed)
    try:
        got = compiled()
    except Exception as error:  # compilation fails with many types of errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Broken(
            seen=f"{type(error).__name__}: {' / '.join(lines[:4])[:400]}",
            expected="one graph",
            cause="Python that looks into a tensor: a branch on its values, .item(), numpy",
        ) from error
    finally:
        torch.compiler.reset()
    cause = "state that is kept in Python between calls"
    expect_same(got, want, what="the compiled result", than="the plain one", cause=cause)
    if wrt is not None:
        gradients = [torch.autograd.grad(x.sum(), wrt)[0] for x in (got, want)]
        expect_same(*gradients, what="its gradient", than="the plain one", cause=cause)
