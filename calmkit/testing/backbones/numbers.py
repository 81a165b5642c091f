"""A backbone's arithmetic: gradients, dtypes, saved states and compilation."""

import io
import warnings

import torch

from calmkit.attention import AttentionMask
from calmkit.testing.backbones.trial import BackboneTrial
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import Broken, contract, expect
from calmkit.testing.expecting import expect_finite, expect_same, expect_unchanged

__all__ = [
    "arguments_are_left_alone",
    "autocast_is_close",
    "compiles",
    "dtype_is_kept",
    "every_parameter_learns",
    "saved_and_loaded_it_is_the_same",
]


@contract()
def every_parameter_learns(trial: BackboneTrial) -> None:
    """Each parameter gets a gradient that is finite, and not zero for every one of ten inputs."""
    backbone = trial.build()
    parameters = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    moved = dict.fromkeys(parameters, False)
    given = dict.fromkeys(parameters, False)
    for step in range(10):
        x, weights = trial.vectors(2, 5, step), trial.vectors(2, 5, 100 + step)
        optimizer.zero_grad()
        (trial.states(backbone, x) * weights).sum().backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                cause = "a root, a norm or a division at zero"
                expect_finite(parameter.grad, what=f"the gradient of {name}", cause=cause)
                given[name] = True
                moved[name] |= bool((parameter.grad != 0).any())
        optimizer.step()
    for name in parameters:
        if not moved[name]:
            found = "is zero in all" if given[name] else "does not exist in any"
            raise Broken(
                seen=f"the gradient of {name} {found} of 10 steps",
                expected="one that is not zero, for some input",
                cause="it is not used, used behind detach(), or multiplied by zero",
            )


@contract()
def arguments_are_left_alone(trial: BackboneTrial) -> None:
    """Vectors are read, never written."""
    backbone, vectors = trial.build(), trial.vectors(2, 5)
    before = vectors.clone()
    with torch.no_grad():
        trial.states(backbone, vectors)
    expect_unchanged([before], [vectors], names="vectors")


@contract()
@torch.no_grad()
def dtype_is_kept(trial: BackboneTrial) -> None:
    """States have the dtype of model and vectors, and are close to those of float64."""
    x = trial.vectors(2, 5)
    want = trial.states(trial.build().eval(), x)
    for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        got = trial.states(trial.build().eval().to(dtype), x.to(dtype))
        cause = "a tensor is made without dtype=, or a sum runs in the low precision"
        expect(got.dtype == dtype, seen=f"states are {got.dtype}", expected=dtype, cause=cause)
        error = float((got.double() - want).norm() / want.norm())
        seen = f"in {dtype} states are off by {error:.2g} of their norm"
        expect(error < most, seen=seen, expected=f"less than {most:g}", cause=cause)


@contract()
@torch.no_grad()
def autocast_is_close(trial: BackboneTrial) -> None:
    """Under bfloat16 autocast states are close to those without."""
    backbone, x = trial.build().eval().float(), trial.vectors(2, 5).float()
    want = trial.states(backbone, x)
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        got = trial.states(backbone, x)
    error = float((got.float() - want).norm() / want.norm())
    cause = "positions, angles or a long sum are computed in bfloat16"
    seen = f"states are off by {error:.2g} of their norm"
    expect(error < 0.05, seen=seen, expected="less than 0.05", cause=cause)


@contract()
@torch.no_grad()
def saved_and_loaded_it_is_the_same(trial: BackboneTrial) -> None:
    """A new backbone that loads a saved state gives the same states."""
    backbone, other = trial.build().eval(), trial.build(number=1).eval()
    file = io.BytesIO()
    torch.save(backbone.state_dict(), file)
    file.seek(0)
    trial.call(other.load_state_dict, torch.load(file, weights_only=True))
    x = trial.vectors(2, 5)
    got, want = trial.states(other, x), trial.states(backbone, x)
    cause = "a tensor is neither a parameter nor a persistent buffer"
    expect_same(got, want, what="states", than="of the saved backbone", cause=cause)


@contract()
def compiles(trial: BackboneTrial) -> None:
    """Over packed documents it is one graph for torch.compile, with the same gradient."""
    backbone = trial.build().eval()
    x = trial.vectors(2, 6).requires_grad_()
    mask = AttentionMask.packed([(2, 4), (6,)])
    name = type(backbone).__name__
    expect_one_graph(trial, lambda: backbone(x, mask), name=name, wrt=x)
