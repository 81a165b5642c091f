"""Every way of differentiating every rule: second derivatives, forward mode, per-sample gradients.

All are compared with the gradient of a plain backward pass, and that one's differences.
"""

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from rule_instances import RULES
from torch.autograd import functional
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead
from calmkit.scoring import ChunkedScore, KernelScore, LaplaceKernel, SpreadWeighted

# PyTorch's own, where forward mode is used for the first time in a process.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

EXTRA = (
    ChunkedScore(KernelScore(LaplaceKernel()), 1),
    SpreadWeighted(KernelScore(LaplaceKernel()), 0.5),
)
every_rule = pytest.mark.parametrize("rule", (*sum(RULES.values(), ()), *EXTRA), ids=str)

SAMPLES, LATENT = 5, 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(rule, batch):
    """Samples, mean, std and noise."""
    generator = seeded(1)
    samples, noise = (
        torch.randn(count, *batch, LATENT, generator=generator)
        for count in (SAMPLES, rule.noise_size)
    )
    mean, std = torch.rand(2, *batch, LATENT, generator=generator)
    return samples, mean, std + 0.2, noise


def flat_problem(rule):
    """A score as a function of one vector, which holds samples, mean and std; and a vector."""
    *parts, noise = problem(rule, ())
    sizes = [part.numel() for part in parts]

    def score(vector):
        samples, mean, std = vector.split(sizes)
        target = DiagonalGaussian(mean, std)
        return rule.score_from(samples.view(SAMPLES, LATENT), target, noise)

    return score, torch.cat([part.flatten() for part in parts])


def gradient(f, v):
    """By a plain backward pass."""
    v = v.detach().requires_grad_()
    return torch.autograd.grad(f(v), v)[0]


def twice_backward(f, v, u):
    v = v.detach().requires_grad_()
    first = torch.autograd.grad(f(v), v, create_graph=True)[0]
    return torch.autograd.grad(first @ u, v)[0]


def forward_over_backward(f, v, u):
    with forward_mode.dual_level():
        dual = forward_mode.make_dual(v.detach().requires_grad_(), u)
        return forward_mode.unpack_dual(torch.autograd.grad(f(dual), dual)[0]).tangent


def backward_over_forward(f, v, u):
    v = v.detach().requires_grad_()
    with forward_mode.dual_level():
        tangent = forward_mode.unpack_dual(f(forward_mode.make_dual(v, u))).tangent
        return torch.autograd.grad(tangent, v)[0]


# Ways to the second derivative of f at v, times a vector u.
SECOND = {
    "backward of backward": twice_backward,
    "forward over backward": forward_over_backward,
    "backward over forward": backward_over_forward,
    "grad of grad": lambda f, v, u: grad(lambda w: grad(f)(w) @ u)(v),
    "jvp of grad": lambda f, v, u: jvp(grad(f), (v,), (u,))[1],
    "grad of jvp": lambda f, v, u: grad(lambda w: jvp(f, (w,), (u,))[1])(v),
    "jacfwd of jvp": lambda f, v, u: jacfwd(lambda w: jvp(f, (w,), (u,))[1])(v),
    "vjp of grad": lambda f, v, u: vjp(grad(f), v)[1](u)[0],
    "jacrev of grad": lambda f, v, u: jacrev(grad(f))(v) @ u,
    "func.hessian": lambda f, v, u: hessian(f)(v) @ u,
    "functional.hessian": lambda f, v, u: functional.hessian(f, v) @ u,
    "vectorised": lambda f, v, u: functional.hessian(f, v, vectorize=True) @ u,
    "vectorised forward": lambda f, v, u: (
        functional.hessian(f, v, vectorize=True, outer_jacobian_strategy="forward-mode") @ u
    ),
    "functional.hvp": lambda f, v, u: functional.hvp(f, v, u)[1],
}


@every_rule
@pytest.mark.parametrize("way", SECOND)
def test_second_derivatives(rule, way):
    """In samples, mean and std at once, against differences of the first."""
    f, v = flat_problem(rule)
    u = torch.randn(len(v), generator=seeded(2))
    step = 1e-5 * u
    want = (gradient(f, v + step) - gradient(f, v - step)) / 2e-5
    torch.testing.assert_close(SECOND[way](f, v, u), want, rtol=1e-6, atol=1e-6)


def dual_jvp(f, v, u):
    with forward_mode.dual_level():
        return forward_mode.unpack_dual(f(forward_mode.make_dual(v, u))).tangent


@every_rule
def test_first_derivatives(rule):
    """Under `torch.func` and in forward mode."""
    f, v = flat_problem(rule)
    u = torch.randn(len(v), generator=seeded(2))
    want = gradient(f, v)
    for got in (grad(f)(v), jacrev(f)(v), jacfwd(f)(v), functional.jacobian(f, v, vectorize=True)):
        torch.testing.assert_close(got, want)
    for got in (jvp(f, (v,), (u,))[1], dual_jvp(f, v, u)):
        torch.testing.assert_close(got, want @ u)


@every_rule
def test_jacobian_of_many_scores(rule):
    """Block by block: positions do not mix."""
    samples, mean, std, noise = problem(rule, (3,))

    def score(samples):
        return rule.score_from(samples, DiagonalGaussian(mean, std), noise)

    want = torch.autograd.functional.jacobian(score, samples)
    for way in (jacrev, jacfwd):
        torch.testing.assert_close(way(score)(samples), want)


@every_rule
def test_per_sample_gradients(rule):
    """`vmap` of the gradient, and of the score, against a loop over positions."""
    parts = problem(rule, (3,))

    def score(samples, mean, std, noise):
        return rule.score_from(samples, DiagonalGaussian(mean, std), noise)

    axes = {"in_dims": (1, 0, 0, 1)}
    loop = [(parts[0][:, i], parts[1][i], parts[2][i], parts[3][:, i]) for i in range(3)]
    want = torch.stack([score(*position) for position in loop])
    torch.testing.assert_close(vmap(score, **axes)(*parts), want)

    every = grad(score, argnums=(0, 1, 2))
    want = [torch.stack(found) for found in zip(*(every(*p) for p in loop), strict=True)]
    torch.testing.assert_close(list(vmap(every, **axes)(*parts)), want)
    leaves = [x.clone().requires_grad_() for x in parts[:3]]
    rule.score_from(leaves[0], DiagonalGaussian(*leaves[1:]), parts[3]).sum().backward()
    plain = [leaves[0].grad.transpose(0, 1), *(leaf.grad for leaf in leaves[1:])]
    torch.testing.assert_close(want, plain)


@every_rule
def test_score_under_vmap_with_one_seed(rule):
    """The checked shell draws its noise inside: the same for all, if they share a seed."""
    samples, mean, std, _ = problem(rule, (3,))

    def score(samples, mean, std):
        return rule.score(samples, DiagonalGaussian(mean, std), seeded(3))

    got = vmap(score, in_dims=(1, 0, 0), randomness="same")(samples, mean, std)
    want = [score(samples[:, i], mean[i], std[i]) for i in range(3)]
    torch.testing.assert_close(got, torch.stack(want))


class LossOf(torch.nn.Module):
    """A head's loss as the forward pass of a module, which is what `functional_call` calls."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *arguments):
        return self.head.loss(*arguments)


@every_rule
def test_per_sample_gradients_of_a_head(rule):
    module = LossOf(
        EnergyHead(3, LATENT, width=4, depth=1, noise_size=2, num_samples=5, rule=rule)
    )
    cond = torch.randn(3, 3, generator=seeded(5))
    _, mean, std, _ = problem(rule, (3,))
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def loss(weights, cond, mean, std):
        return functional_call(module, weights, (cond, DiagonalGaussian(mean, std), seeded(6)))

    every = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="same")
    got = every(weights, cond, mean, std)
    for i in range(3):
        module.zero_grad()
        module(cond[i], DiagonalGaussian(mean[i], std[i]), seeded(6)).backward()
        for name, weight in module.named_parameters():
            torch.testing.assert_close(got[name][i], weight.grad)


@every_rule
@pytest.mark.parametrize("std", [0.0, 0.5])
def test_second_derivatives_at_ties_are_finite(rule, std):
    """Samples that coincide with each other and with the target; all samples equal."""
    samples = torch.ones(SAMPLES, 2, LATENT)
    samples[3:, 0] = 2.0
    samples.requires_grad_()
    mean = torch.ones(2, LATENT, requires_grad=True)
    spread = torch.full((2, LATENT), std, requires_grad=True)
    noise = torch.randn(rule.noise_size, 2, LATENT, generator=seeded(4))
    score = rule.score_from(samples, DiagonalGaussian(mean, spread), noise).sum()
    leaves = (samples, mean, spread)
    first = torch.autograd.grad(score, leaves, create_graph=True, materialize_grads=True)
    score = sum(x.square().sum() for x in first)
    second = torch.autograd.grad(score, leaves, materialize_grads=True)
    assert all(torch.isfinite(x).all() for x in second)
