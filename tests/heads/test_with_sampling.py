"""`with_sampling`: other samples from the same weights, as the constructor would have it."""

import pytest
import torch
from head_instances import HEADS, OTHER_ARGUMENTS

from calmkit.heads import (
    ContrastiveHead,
    CosineSchedule,
    DDIMSampler,
    DiffusionHead,
    EnergyHead,
    EulerSolver,
    FlowHead,
    GaussianHead,
    GuidedHead,
    HeunSolver,
    MeanFlowHead,
)
from calmkit.recording import construction_of, recorded
from calmkit.saving import CannotBeSavedError, load, save

CASES = [
    (kind, {name: OTHER_ARGUMENTS[kind][name]})
    for kind in HEADS
    for name in sorted(kind.sampling_arguments)
]
every_setting = pytest.mark.parametrize(
    ("kind", "settings"),
    CASES,
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.__name__,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lively(kind):
    """A head with no parameter at zero, where it might hide another."""
    head = HEADS[kind](5, 3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(
                0.4 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
            )
    return head


def samples_of(head):
    return head.sample(torch.randn(4, 5, generator=seeded(1)), 6, seeded(2))


@every_setting
def test_it_samples_as_a_head_built_so_with_the_same_weights(kind, settings):
    head = lively(kind)
    before, old = samples_of(head), head.sampling_settings
    other = head.with_sampling(**settings)
    built = kind(**{**construction_of(head).arguments, **settings})
    built.load_state_dict(head.state_dict())
    assert torch.equal(samples_of(other), samples_of(built))
    assert other.evaluations_per_sample == built.evaluations_per_sample
    assert other.sampling_settings == {**old, **settings}
    # The head itself stays as it is.
    assert head.sampling_settings == old
    assert torch.equal(samples_of(head), before)
    assert not torch.isclose(samples_of(other), before).any()


@every_setting
def test_the_weights_are_the_very_same(kind, settings):
    head = lively(kind)
    other = head.with_sampling(**settings)
    assert list(other.state_dict()) == list(head.state_dict())
    ours, theirs = list(head.parameters()), list(other.parameters())
    assert all(a is b for a, b in zip(ours, theirs, strict=True))
    head.to(torch.float32)
    assert all(p.dtype == torch.float32 for p in other.parameters())


@every_setting
def test_it_is_saved_and_loaded_with_its_own_settings(tmp_path, kind, settings):
    other = lively(kind).with_sampling(**settings)
    save(other, tmp_path)
    loaded = load(tmp_path, kind, trust=("head_instances",))
    assert loaded.sampling_settings == other.sampling_settings
    assert torch.equal(samples_of(loaded), samples_of(other))


@pytest.mark.parametrize("factory", [None, FlowHead, lambda c, n: FlowHead(c, n, width=8)])
def test_a_guided_head_takes_the_settings_of_the_head_inside(tmp_path, factory):
    inside = EnergyHead if factory is None else FlowHead
    head = GuidedHead(5, 3, head=factory, scale=2.0).double()
    name, value = ("noise_scale", 0.5) if factory is None else ("solver", HeunSolver(3))
    other = head.with_sampling(**{name: value, "scale": 0.5})
    assert other.sampling_settings == {**head.sampling_settings, name: value, "scale": 0.5}
    assert isinstance(other.head, inside) and getattr(other.head, name) == value
    assert head.sampling_settings[name] != value and head.scale == 2.0
    assert all(a is b for a, b in zip(other.parameters(), head.parameters(), strict=True))
    save(other, tmp_path)
    loaded = load(tmp_path, GuidedHead)
    assert loaded.sampling_settings == other.sampling_settings
    assert torch.equal(samples_of(loaded), samples_of(other))


def test_settings_that_it_does_not_name_stay():
    class Two(FlowHead):
        sampling_arguments = frozenset({"solver", "shift"})

        def __init__(self, cond_size, latent_size, *, solver=None, shift=0.0):
            self.shift = shift
            super().__init__(cond_size, latent_size, width=4, solver=solver)

    head = Two(5, 3).with_sampling(shift=1.0).with_sampling(solver=EulerSolver(2))
    assert head.sampling_settings == {"shift": 1.0, "solver": EulerSolver(2)}
    arguments = construction_of(head).arguments
    assert (arguments["shift"], arguments["solver"]) == (1.0, EulerSolver(2))


@recorded
def published_head():
    return FlowHead(5, 3, width=4)


def test_a_maker_that_does_not_take_the_setting_is_not_saved_as_if_it_did(tmp_path):
    head = published_head().with_sampling(solver=EulerSolver(2))
    with pytest.raises(CannotBeSavedError, match="solver"):
        save(head, tmp_path)


def test_a_setting_that_is_a_module_is_the_copys_alone():
    class Scaled(EnergyHead):
        sampling_arguments = frozenset({"gain"})

        def __init__(self, cond_size, latent_size, *, gain=None):
            super().__init__(cond_size, latent_size, width=4)
            self.gain = torch.nn.Identity() if gain is None else gain

    head = Scaled(5, 3)
    other = head.with_sampling(gain=torch.nn.Tanh())
    assert isinstance(head.gain, torch.nn.Identity) and isinstance(other.gain, torch.nn.Tanh)


@pytest.mark.parametrize(
    ("head", "settings", "message"),
    [
        (
            FlowHead(5, 3, width=4),
            {"steps": 4},
            "steps must be one of the settings that FlowHead samples with: noise_scale, solver",
        ),
        (
            FlowHead(5, 3, width=4),
            {"solver": EulerSolver(), "width": 8},
            "width must be one of the settings that FlowHead samples with: noise_scale, solver",
        ),
        (
            GaussianHead(5, 3, width=4),
            {"temperature": 0.5},
            "temperature must be one of the settings that GaussianHead samples with: none",
        ),
        (
            GuidedHead(5, 3, head=lambda c, n: FlowHead(c, n, width=4)),
            {"sampler": None},
            "sampler must be .* GuidedHead samples with: scale, noise_scale, solver, truncation",
        ),
        (FlowHead(5, 3, width=4), {"solver": None}, "solver must be a Solver, .*; got None"),
        (
            DiffusionHead(5, 3, width=4),
            {"sampler": 3},
            "sampler must be a ReverseSampler, .*; got 3",
        ),
        (
            DiffusionHead(5, 3, width=4, schedule=CosineSchedule(100)),
            {"sampler": DDIMSampler(101)},
            r"length must be in \[1, 100\], the steps of the schedule; got 101",
        ),
        (MeanFlowHead(5, 3, width=4), {"steps": 0}, "steps must be at least 1; got 0"),
        (EnergyHead(5, 3, width=4), {"noise_scale": -1.0}, r"noise_scale must be in \[0, inf\)"),
        (GuidedHead(5, 3), {"scale": -1.0}, r"scale must be in \[0, inf\); got -1.0"),
        (GuidedHead(5, 3, head=GaussianHead), {"scale": 1.5}, "scale must be 0 or 1 for Gaussian"),
        (ContrastiveHead(5, 3), {"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_what_a_head_does_not_take_is_refused_and_changes_nothing(head, settings, message):
    before = head.sampling_settings
    with pytest.raises(ValueError, match=message):
        head.with_sampling(**settings)
    assert head.sampling_settings == before
