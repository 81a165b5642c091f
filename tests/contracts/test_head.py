"""The suite of heads over all exported ones, and what our own promise besides."""

import inspect
import warnings
from fnmatch import fnmatchcase

import pytest
import torch
from head_instances import HEADS, NETWORKS, OTHER_ARGUMENTS
from jaxtyping import TypeCheckError

import calmkit.heads
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import (
    BlockwiseHead,
    ContrastiveHead,
    DiffusionHead,
    DriftingHead,
    EnergyHead,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GuidedHead,
    Head,
    MeanFlowHead,
    MixtureHead,
    SplineFlowHead,
    TiedMixtureHead,
)
from calmkit.recording import construction_of
from calmkit.testing import parametrize_contracts

COND, LATENT = 5, 3

every_head = pytest.mark.parametrize("kind", list(HEADS), ids=lambda kind: kind.__name__)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(kind, cond=COND, latent=LATENT):
    """An instance with random weights: those that start at zero would hide what they multiply."""
    head = HEADS[kind](cond, latent)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(
                0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
            )
    return head


def problem(batch, latent=LATENT, dtype=None, seed=1):
    generator = seeded(seed)
    cond = torch.randn(*batch, COND, generator=generator, dtype=dtype)
    mean = torch.randn(*batch, latent, generator=generator, dtype=dtype)
    return cond, DiagonalGaussian(mean, 0.3 + torch.zeros_like(mean))


def test_every_exported_head_is_here():
    exported = {
        value
        for value in vars(calmkit.heads).values()
        if inspect.isclass(value) and issubclass(value, Head) and not inspect.isabstract(value)
    }
    assert exported == set(HEADS) == set(NETWORKS) == set(OTHER_ARGUMENTS)
    # Those of wrapping heads are other heads'.
    assert exported - {BlockwiseHead, GuidedHead} == set(CORES)


# With two steps a flow's samples have another law than its density, as the suite would say.
PRECISE = {
    FlowHead: lambda cond, latent: FlowHead(cond, latent, width=8, depth=2, draws=2),
}


@parametrize_contracts(
    "head",
    {kind.__name__: make for kind, make in (HEADS | PRECISE).items()},
    exempt={
        "GaussianHead/loss_depends_on_seed": "its loss is a closed form",
        "DriftingHead/loss_averages_over_the_target": "the value is a square; its gradient does",
    },
    profile="quick",
)
def test_contract(check):
    check()


@every_head
def test_constructor_starts_with_the_shared_sizes(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    assert [p.name for p in parameters[:2]] == ["cond_size", "latent_size"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])


def results(head, cond, target):
    """Loss, samples and, where there is one, log-density."""
    found = {"loss": head.loss(cond, target, seeded()), "samples": head.sample(cond, 2, seeded())}
    if hasattr(head, "log_prob"):
        found["log_prob"] = head.log_prob(cond, target.mean)
    return found


ALL_DTYPES = [torch.bfloat16, torch.float32, torch.float64]


@every_head
@pytest.mark.parametrize("target_dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_targets_may_have_any_dtype(kind, dtype, target_dtype):
    """They are taken to the head's, float32 at least, in which losses are computed."""
    head = build(kind).to(dtype)
    cond, target = problem((4,), dtype=dtype)
    given = DiagonalGaussian(target.mean.to(target_dtype), target.std.to(target_dtype))
    wide = torch.promote_types(dtype, torch.float32)
    want = {"loss": wide, "samples": dtype, "log_prob": wide}
    found = results(head, cond, given)
    assert {name: x.dtype for name, x in found.items()} == {name: want[name] for name in found}
    taken = DiagonalGaussian(given.mean.to(wide), given.std.to(wide))
    for name, x in results(head, cond, taken).items():
        assert torch.equal(found[name], x), name


@every_head
@pytest.mark.parametrize("target_dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("cond_dtype", [torch.bfloat16, torch.float32], ids=str)
def test_dtypes_under_autocast(kind, cond_dtype, target_dtype):
    head = build(kind).float()
    cond, target = problem((4,), dtype=target_dtype)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        found = results(head, cond.to(cond_dtype), target)
    assert {x.dtype for x in found.values()} == {torch.float32}


@every_head
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_a_condition_of_another_dtype_is_named(kind, dtype):
    head = build(kind).to(dtype)
    for other in set(ALL_DTYPES) - {dtype}:
        cond, target = problem((4,), dtype=other)
        message = f"cond must have the dtype of the head's weights, {dtype}; got {other}"
        with pytest.raises(ValueError, match=message):
            head.loss(cond, target)
        with pytest.raises(ValueError, match=message):
            head.sample(cond, 2)
        if hasattr(head, "log_prob"):
            with pytest.raises(ValueError, match=message):
                head.log_prob(cond, target.mean)


@every_head
def test_autocast_lowers_no_double(kind):
    cond, target = problem((4,), dtype=torch.float64)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=r"weights, torch.float32; got torch.float64"),
    ):
        build(kind).float().loss(cond, target)


def jump_core(head, cond, a, b):
    return head.loss_from(cond, a, b, 0.5 * a[..., 0].sigmoid(), 1 - 0.5 * b[:1, ..., 0].sigmoid())


# Deterministic cores, which take all their noise: (head, cond, two draws of vectors) to a result.
CORES = {
    EnergyHead: lambda head, cond, a, b: head.sample_from(cond, a[..., :3]),
    DriftingHead: lambda head, cond, a, b: head.sample_from(cond, a[..., :3]),
    FlowHead: lambda head, cond, a, b: head.loss_from(cond, a, b, a[..., 0].sigmoid()),
    DiffusionHead: lambda head, cond, a, b: head.loss_from(
        cond, a, b, torch.arange(a[..., 0].numel()).view(a.shape[:-1])
    ),
    MeanFlowHead: jump_core,
    FlowMapHead: jump_core,
    GaussianHead: lambda head, cond, a, b: head.sample_from(cond, a),
    MixtureHead: lambda head, cond, a, b: head.loss_from(
        cond, DiagonalGaussian(a[0], a[1].abs()), b
    ),
    TiedMixtureHead: lambda head, cond, a, b: head.loss_from(cond, a),
    SplineFlowHead: lambda head, cond, a, b: head.sample_from(cond, a),
    ContrastiveHead: lambda head, cond, a, b: head.loss_from(cond, a, b),
}


@pytest.mark.parametrize(
    "kind", [kind for kind in HEADS if kind in CORES], ids=lambda kind: kind.__name__
)
def test_own_heads_compiled_with_given_noise_are_the_same(kind):
    head = build(kind)
    cond, _ = problem((4,))
    draws = torch.randn(2, 2, 4, LATENT, generator=seeded())
    torch._dynamo.reset()
    compiled = torch.compile(CORES[kind], fullgraph=True, backend="aot_eager")
    want = CORES[kind](head, cond, *draws)
    torch.testing.assert_close(compiled(head, cond, *draws), want)


def test_a_compiled_head_that_is_converted_compiles_anew():
    """What it reads of its weights while it is traced is a constant of the graph."""
    head = build(GaussianHead)
    compiled = torch.compile(
        lambda cond, noise: head.sample_from(cond, noise), fullgraph=True, backend="eager"
    )
    for dtype in (torch.float64, torch.bfloat16, torch.float64):
        head.to(dtype)
        cond, _ = problem((4,), dtype=dtype)
        noise = torch.randn(2, 4, LATENT, generator=seeded()).to(dtype)
        want = head.sample_from(cond, noise)
        torch.testing.assert_close(compiled(cond, noise), want)


@pytest.mark.parametrize(
    "kind", [kind for kind in HEADS if kind in NETWORKS], ids=lambda kind: kind.__name__
)
def test_own_heads_run_their_network_as_often_as_they_say(kind):
    head = build(kind)
    cond, _ = problem((2,))
    calls = []
    for name, module in head.named_modules():
        if fnmatchcase(name, NETWORKS[kind]):
            module.register_forward_hook(lambda *_: calls.append(1))
    head.sample(cond, 5, seeded())
    assert len(calls) == head.evaluations_per_sample


def test_own_heads_are_rebuilt_with_another_value_of_each_argument():
    for kind, others in OTHER_ARGUMENTS.items():
        assert list(others) == list(inspect.signature(kind).parameters)[2:], kind


def training_step(head):
    """State shapes, loss and gradients: all that training sees of a head."""
    head.zero_grad()
    cond, target = problem((16,))
    loss = head.loss(cond, target, seeded())
    loss.sum().backward()
    return [loss.detach(), *(parameter.grad for parameter in head.parameters())]


def state_shapes(head):
    return {name: tensor.shape for name, tensor in head.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in HEADS for name in OTHER_ARGUMENTS.get(kind, ())],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_own_heads_declare_the_arguments_that_only_sampling_reads(kind, name):
    head = build(kind)
    kept = construction_of(head).arguments
    other = kind(**{**kept, name: OTHER_ARGUMENTS[kind][name]})
    same_training = state_shapes(head) == state_shapes(other)
    if same_training:
        other.load_state_dict(head.state_dict())
        steps = zip(training_step(head), training_step(other), strict=True)
        same_training = all(torch.equal(a, b) for a, b in steps)
    assert same_training == (name in kind.sampling_arguments)
    if same_training:
        cond, _ = problem((4,))
        first, second = (h.sample(cond, 3, seeded()) for h in (head, other))
        assert not torch.isclose(first, second).any()


@every_head
def test_a_condition_of_integers_is_refused(kind):
    with pytest.raises(TypeCheckError, match="cond"):
        build(kind).sample(problem((4,))[0].long(), 2)
