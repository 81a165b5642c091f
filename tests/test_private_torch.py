"""What calmkit asks of PyTorch's private functions: a release that changes them fails here."""

import pytest
import torch

from calmkit.private_torch import distance_gradient, has_values, in_transform


def ask(question):
    """A function of a tensor that notes the answer on its way."""
    answers = []

    def function(x):
        answers.append(question(x))
        return x.sum()

    return function, answers


x = torch.ones(2, 3)
TRANSFORMS = {
    "none": (lambda f: f(x), True),
    "grad": (lambda f: torch.func.grad(f)(x), True),
    "grad of grad": (lambda f: torch.func.grad(lambda v: torch.func.grad(f)(v).sum())(x), True),
    "vmap": (lambda f: torch.vmap(f)(x), False),
    "vmap of grad": (lambda f: torch.vmap(torch.func.grad(f))(x), False),
    "grad of vmap": (lambda f: torch.func.grad(lambda v: torch.vmap(f)(v).sum())(x), False),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_values_cannot_be_read_under_vmap_at_any_depth(name):
    transform, readable = TRANSFORMS[name]
    function, answers = ask(has_values)
    transform(function)
    assert answers == [readable]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_seen(name):
    function, answers = ask(lambda _: in_transform())
    TRANSFORMS[name][0](function)
    assert answers == [name != "none"]
    assert not in_transform()


def test_gradient_of_distances():
    generator = torch.Generator().manual_seed(0)
    a, b, grad = (
        torch.randn(4, *shape, generator=generator) for shape in ((5, 3), (6, 3), (5, 6))
    )
    b[:, 0] = a[:, 0]  # a distance of zero counts as nothing
    differences = a[:, :, None] - b[:, None]
    distance = differences.norm(dim=-1)
    want = (grad / distance).nan_to_num(0.0, 0.0, 0.0)[..., None] * differences
    got = distance_gradient(grad, a, b, distance)
    torch.testing.assert_close(got, want.sum(dim=2))
