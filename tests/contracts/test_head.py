"""What every head promises, run over all exported heads."""

import inspect
import warnings

import pytest
import torch
from head_instances import HEADS, NETWORKS, OTHER_ARGUMENTS
from jaxtyping import TypeCheckError

import calmkit.heads
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import (
    ContrastiveHead,
    DiffusionHead,
    EnergyHead,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GuidedHead,
    Head,
    MeanFlowHead,
    MixtureHead,
)
from calmkit.recording import construction_of

COND, LATENT = 5, 3
BATCHES = [(), (1,), (4,), (0,), (2, 3), (2, 0)]

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
    # That of a guided head is another head's.
    assert exported - {GuidedHead} == set(CORES)


@every_head
def test_constructor_starts_with_the_shared_sizes(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    assert [p.name for p in parameters[:2]] == ["cond_size", "latent_size"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])


@every_head
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_sizes_below_one_are_refused(kind, sizes):
    with pytest.raises(ValueError, match="cond_size and latent_size must be at least 1"):
        kind(*sizes)


@every_head
@pytest.mark.parametrize("latent", [1, LATENT])
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_shapes(kind, batch, latent):
    head = build(kind, latent=latent)
    cond, target = problem(batch, latent)
    loss = head.loss(cond, target, seeded())
    samples = head.sample(cond, 2, seeded())
    assert loss.shape == batch
    assert samples.shape == (2, *batch, latent)
    assert torch.isfinite(loss).all() and torch.isfinite(samples).all()
    loss.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@every_head
def test_no_samples_are_an_empty_result(kind):
    assert build(kind).sample(problem((4,))[0], 0, seeded()).shape == (0, 4, LATENT)


@every_head
def test_own_heads_name_a_negative_number_of_samples(kind):
    with pytest.raises(ValueError, match="num_samples must be at least 0; got -1"):
        build(kind).sample(problem((4,))[0], -1, seeded())


@every_head
@pytest.mark.parametrize("latent", [1, LATENT])
@pytest.mark.parametrize("std", [0.0, 0.3], ids=["point mass", "gaussian"])
def test_each_parameter_has_a_finite_gradient(kind, std, latent):
    head = build(kind, latent=latent)
    cond, target = problem((4,), latent)
    target = DiagonalGaussian(target.mean, torch.full_like(target.mean, std))
    head.loss(cond.requires_grad_(), target, seeded()).sum().backward()
    for name, tensor in [*head.named_parameters(), ("cond", cond)]:
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name
        assert (tensor.grad != 0).any(), name


@every_head
def test_randomness_is_the_generator_alone(kind):
    head = build(kind)
    cond, target = problem((4,))

    def run(seed):
        return head.loss(cond, target, seeded(seed)), head.sample(cond, 3, seeded(seed))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.isclose(first[1], other[1]).any()  # A loss may draw nothing.


@every_head
def test_samples_differ_from_each_other_and_read_the_condition(kind):
    head = build(kind)
    cond, _ = problem((2,))
    same = torch.stack([cond[0], cond[0]])
    samples = head.sample(same, 3, seeded()).flatten(0, 1)
    assert torch.pdist(samples).min() > 1e-6
    assert not torch.isclose(
        head.sample(cond, 3, seeded())[:, 1], samples.view(3, 2, -1)[:, 1]
    ).any()


@every_head
def test_positions_do_not_mix(kind):
    head = build(kind)
    cond, target = problem((4,))
    changed = cond.clone()
    changed[2] += 1
    same = [0, 1, 3]
    for measure in (
        lambda c: head.sample(c, 3, seeded()).transpose(0, 1),
        lambda c: head.loss(c, target, seeded(2)),  # which does not hide the changed condition
    ):
        torch.testing.assert_close(measure(changed)[same], measure(cond)[same])
        assert not torch.isclose(measure(changed)[2], measure(cond)[2]).any()


@every_head
def test_saved_and_loaded(kind):
    head, other = build(kind), HEADS[kind](COND, LATENT)
    cond, _ = problem((4,))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.sample(cond, 2, seeded()), head.sample(cond, 2, seeded()))


@every_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(kind, dtype):
    head = build(kind).to(dtype)
    cond, target = problem((4,), dtype=dtype)
    assert head.loss(cond, target, seeded()).dtype == dtype
    assert head.sample(cond, 2, seeded()).dtype == dtype


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


@every_head
@pytest.mark.parametrize("cond_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_autocast(kind, cond_dtype):
    """Also where the layer before left its output in bfloat16."""
    head = build(kind).float()
    cond, target = problem((4,), dtype=torch.float32)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        loss = head.loss(cond.to(cond_dtype), target, seeded())
        samples = head.sample(cond.to(cond_dtype), 2, seeded())
    loss.sum().backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, head.loss(cond, target, seeded()), rtol=0.1, atol=0.1)
    assert torch.isfinite(samples).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@every_head
def test_a_model_cast_to_bfloat16(kind):
    head = build(kind).bfloat16()
    cond, target = problem((4,), dtype=torch.bfloat16)
    loss, samples = head.loss(cond, target, seeded()), head.sample(cond, 2, seeded())
    loss.sum().backward()
    assert samples.dtype == torch.bfloat16
    assert torch.isfinite(loss).all() and torch.isfinite(samples).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@every_head
def test_loss_compiles_in_one_graph(kind):
    head = build(kind)
    cond, target = problem((4,))
    torch._dynamo.reset()
    compiled = torch.compile(head.loss, fullgraph=True, backend="aot_eager")
    loss = compiled(cond, target)
    assert loss.shape == (4,) and torch.isfinite(loss).all()


@every_head
def test_sampling_compiles_in_one_graph(kind):
    """And draws the same numbers."""
    head = build(kind)
    cond, _ = problem((4,))
    torch._dynamo.reset()
    compiled = torch.compile(head.sample, fullgraph=True, backend="aot_eager")
    drawn = []
    for sample in (compiled, head.sample):
        torch.manual_seed(0)  # a generator cannot be passed into a graph
        drawn.append(sample(cond, 2))
    torch.testing.assert_close(*drawn)


def jump_core(head, cond, a, b):
    return head.loss_from(cond, a, b, 0.5 * a[..., 0].sigmoid(), 1 - 0.5 * b[:1, ..., 0].sigmoid())


# Deterministic cores, which take all their noise: (head, cond, two draws of vectors) to a result.
CORES = {
    EnergyHead: lambda head, cond, a, b: head.sample_from(cond, a[..., :3]),
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


@pytest.mark.parametrize(
    "kind", [kind for kind in HEADS if hasattr(kind, "log_prob")], ids=lambda kind: kind.__name__
)
def test_own_heads_with_a_density(kind):
    head = build(kind)
    for batch in BATCHES:
        cond, target = problem(batch)
        assert head.log_prob(cond, target.mean).shape == batch
    cond, latents = problem((4,))[0], problem((4,))[1].mean
    changed = latents.clone()
    changed[2] += 1
    before, after = head.log_prob(cond, latents), head.log_prob(cond, changed)
    torch.testing.assert_close(after[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.isclose(after[2], before[2])
    with pytest.raises(ValueError, match="latents must have latent_size = 3 dimensions; got 2"):
        head.log_prob(cond, latents[:, 1:])
    with pytest.raises(ValueError, match="cond must have cond_size = 5 features; got 4"):
        head.log_prob(cond[:, 1:], latents)
    with pytest.raises(TypeCheckError, match="latents"):
        head.log_prob(cond, latents[:1])


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize(
    "kind", [kind for kind in HEADS if hasattr(kind, "log_prob")], ids=lambda kind: kind.__name__
)
def test_own_heads_densities_integrate_to_one(kind, latent):
    head = build(kind, latent=latent)
    side = torch.linspace(-8, 8, {1: 401, 2: 65}[latent])
    latents = torch.cartesian_prod(*[side] * latent).view(-1, latent)
    with torch.no_grad():
        density = head.log_prob(problem(())[0].expand(len(latents), COND), latents).exp()
    total = density.sum() * (side[1] - side[0]) ** latent
    # Exact but for the solver of a flow, here with a field that trembles: measured 0.002.
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=0.0, atol=5e-3)


@pytest.mark.parametrize(
    "kind", [kind for kind in HEADS if kind in NETWORKS], ids=lambda kind: kind.__name__
)
def test_own_heads_run_their_network_as_often_as_they_say(kind):
    head = build(kind)
    cond, _ = problem((2,))
    calls = []
    head.get_submodule(NETWORKS[kind]).register_forward_hook(lambda *_: calls.append(1))
    head.sample(cond, 5, seeded())
    assert len(calls) == head.evaluations_per_sample


@every_head
def test_sampling_arguments_are_keywords_of_the_constructor(kind):
    assert kind.sampling_arguments <= set(list(inspect.signature(kind).parameters)[2:])


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
def test_wrong_sizes_are_named(kind):
    head = build(kind)
    cond, target = problem((4,))
    with pytest.raises(ValueError, match="cond must have cond_size = 5 features; got 4"):
        head.sample(cond[:, 1:], 2)
    with pytest.raises(ValueError, match="cond must have cond_size = 5 features; got 4"):
        head.loss(cond[:, 1:], target)
    with pytest.raises(ValueError, match="target must have latent_size = 3 dimensions; got 4"):
        head.loss(cond, problem((4,), latent=4)[1])
    with pytest.raises(TypeCheckError, match="cond"):
        head.sample(cond.long(), 2)


@every_head
@pytest.mark.parametrize("batches", [((4,), (1,)), ((1,), (4,)), ((2, 4), (4,))], ids=str)
def test_batch_axes_do_not_broadcast(kind, batches):
    head = build(kind)
    cond, target = problem(batches[0])[0], problem(batches[1])[1]
    with pytest.raises((ValueError, TypeCheckError), match=r"samples|latents|noise|target"):
        head.loss(cond, target)
