"""Tied mixtures: the density of PyTorch's own mixture, and a start on the latents of the text."""

import math

import pytest
import torch
from seeding import seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.finite import NonFiniteError
from calmkit.heads import GuidedHead, TiedMixtureHead, tied_mixture
from calmkit.heads.gaussian import positive_std
from calmkit.training import MatrixDecayAdamW


def small(*, components=4, latent=3, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = TiedMixtureHead(
            5, latent, width=8, depth=2, components=components, **settings
        ).double()
        # The weights of an untrained head do not depend on the condition.
        torch.nn.init.normal_(head.network.output.weight, std=0.3)
    return head


def law(head, cond):
    """The same law, by PyTorch's distributions."""
    logits, shift = head.network(cond).split([head.components, head.latent_size], dim=-1)
    normal = torch.distributions.Normal(
        head.mean + shift[..., None, :], positive_std(head.raw_std, head.min_std)
    )
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), torch.distributions.Independent(normal, 1)
    )


def clusters(count, generator, *, kinds=6, latent=3):
    """Posteriors of `kinds` chunks, of which the first is the most frequent."""
    places = 4 * torch.randn(kinds, latent, generator=seeded(9))
    frequency = 1 / torch.arange(1, kinds + 1)
    kind = torch.multinomial(frequency, count, replacement=True, generator=generator)
    return DiagonalGaussian(places[kind], torch.full((count, latent), 0.1)), places, kind


def test_density_is_that_of_the_mixture():
    head, cond = small(), torch.randn(6, 5, generator=seeded())
    z = torch.randn(6, 3, generator=seeded(1))
    torch.testing.assert_close(head.log_prob(cond, z), law(head, cond).log_prob(z))
    torch.testing.assert_close(head.loss(cond, z), -head.log_prob(cond, z))


def test_loss_is_the_mean_over_its_draws():
    head, (cond, mean) = small(draws=3), torch.randn(2, 4, 5, generator=seeded())
    target = DiagonalGaussian(mean[:, :3], torch.full((4, 3), 0.5))
    want = -sum(head.log_prob(cond, z) for z in target.sample(3, seeded(1))) / 3
    torch.testing.assert_close(head.loss(cond, target, seeded(1)), want)


@pytest.mark.parametrize("components", [1, 7])
@pytest.mark.parametrize("latent", [1, 3])
def test_an_untrained_head_has_mean_0_and_variance_1(components, latent):
    head = TiedMixtureHead(5, latent, width=8, components=components)
    untrained = law(head, torch.randn(2, 5, generator=seeded()))
    torch.testing.assert_close(untrained.mean, torch.zeros(2, latent))
    torch.testing.assert_close(untrained.variance, torch.ones(2, latent))


def test_density_keeps_its_digits_at_the_floor():
    """In float32 and with all sigma at the default floor; latents are of unit variance."""
    head = small(components=64, latent=32)
    with torch.no_grad():
        head.mean.copy_(torch.randn(64, 32, generator=seeded(3)))
        head.raw_std.fill_(-40)
    cond = torch.randn(64, 5, generator=seeded())
    z = head.mean.detach() + 0.05 * torch.randn(64, 32, generator=seeded(1))
    want = law(head, cond).log_prob(z)
    got = head.float().log_prob(cond.float(), z.float())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=0.01)  # measured 0.003


def test_a_latent_beyond_all_squares_has_no_density():
    """As for other heads: its log-density is minus infinity, not NaN."""
    head, far = small().float(), torch.full((2, 3), 1e20, dtype=torch.float32)
    got = head.log_prob(torch.zeros(2, 5).float(), far)
    assert torch.equal(got, torch.full_like(got, -math.inf))


def test_draws_of_another_size_are_refused():
    """One number would be taken for all dimensions."""
    with pytest.raises(ValueError, match="latents must have latent_size = 3 dimensions; got 1"):
        small().loss_from(torch.zeros(4, 5), torch.zeros(2, 4, 1))


def test_samples_have_the_moments_of_the_law():
    head, cond = small().requires_grad_(False), torch.randn(3, 5, generator=seeded())
    want, samples = law(head, cond), head.sample(cond, 100_000, seeded(1))
    error = (samples.mean(0) - want.mean).abs() / (samples.std(0) / len(samples) ** 0.5)
    assert error.max() < 4.5
    squares = (samples - want.mean).square()
    error = (squares.mean(0) - want.variance).abs() / (squares.std(0) / len(samples) ** 0.5)
    assert error.max() < 4.5
    # A sampler that ignored the weights would be far off.
    head.network.output.weight[: head.components] = 0
    assert ((head.sample(cond, 100_000, seeded(1)).mean(0) - want.mean).abs() > 0.1).any()


def test_a_component_is_chosen_by_the_first_sum_above_the_uniform_number():
    head = small(components=3).requires_grad_(False)
    head.network.output.weight.zero_()
    head.network.output.bias[:3] = torch.tensor([0.25, 0.25, 0.5]).log()
    head.network.output.bias[3:] = 0
    uniform = torch.tensor([[0.0], [0.2499], [0.25], [0.4999], [0.5], [0.9999]])
    got = head.sample_from(torch.zeros(1, 5), uniform, torch.zeros(6, 1, 3))
    assert torch.equal(got[:, 0], head.mean[torch.tensor([0, 0, 1, 1, 2, 2])])


def test_rare_components_are_drawn_in_low_precision():
    """A uniform number in bfloat16 is never above 0.996."""
    head = small(components=2).bfloat16().requires_grad_(False)
    head.network.output.weight.zero_()
    head.network.output.bias[:2] = torch.tensor([0.999, 0.001]).log()
    head.mean.copy_(torch.tensor([[0.0], [100.0]]))
    samples = head.sample(torch.zeros(1, 5, dtype=torch.bfloat16), 100_000, seeded())
    assert 50 < (samples[:, 0, 0] > 50).sum() < 150


def test_logits_learn_as_those_of_a_classifier():
    """With well separated components the loss of a latent is a cross entropy of its component."""
    head, cond = small(), torch.randn(4, 5, generator=seeded())
    with torch.no_grad():
        head.mean.copy_(100 * torch.eye(4)[:, :3])
        head.network.output.weight[4:] = 0
        head.network.output.bias[4:] = 0
    head.loss(cond, head.mean.detach()).sum().backward()
    got = head.network.output.bias.grad[:4]
    want = head.network(cond)[:, :4].softmax(dim=-1).sum(dim=0) - 1
    torch.testing.assert_close(got, want)


def test_the_gradient_of_a_logit_is_its_responsibility_less_its_weight():
    head, cond = small(), torch.randn(1, 5, generator=seeded())
    z = torch.randn(1, 3, generator=seeded(1))
    head.log_prob(cond, z).sum().backward()
    mixture = law(head, cond)
    weights = mixture.mixture_distribution.probs[0].tolist()
    places = mixture.component_distribution.log_prob(z[:, None])[0].exp().tolist()
    density = sum(w * p for w, p in zip(weights, places, strict=True))
    want = [w * p / density - w for w, p in zip(weights, places, strict=True)]
    got = head.network.output.bias.grad[:4]
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype))


class TestStart:
    def test_every_distinct_latent_has_a_component_with_its_frequency(self):
        head = small(components=9)
        target, places, kind = clusters(500, seeded())
        head.start_from(target, seeded(1))
        found = torch.cdist(places, head.mean[:6].detach()).min(dim=-1)
        assert found.values.max() < 1e-9
        share = head.network.output.bias[:6].exp()[found.indices]
        assert (share - torch.bincount(kind, minlength=6) / 500).abs().max() < 0.005
        assert head.network.output.bias[:9].exp().sum().item() == pytest.approx(1)
        # The other three start at draws of the posteriors.
        beyond = torch.cdist(head.mean[6:].detach(), places).min(dim=-1).values
        assert (beyond > 1e-3).all() and (beyond < 1).all()

    def test_the_most_frequent_come_first(self):
        head = small(components=3)
        target, places, kind = clusters(500, seeded())
        head.start_from(target, seeded(1))
        want = torch.bincount(kind, minlength=6).topk(3).indices
        assert torch.cdist(places[want], head.mean.detach()).min(dim=-1).values.max() < 1e-9

    def test_which_of_equals_come_first_is_the_generators_choice(self):
        latents, starts = torch.randn(50, 3, generator=seeded()), []
        for seed in (1, 1, 2):
            head = small(components=4)
            head.start_from(latents, seeded(seed))
            starts.append(head.mean)
        assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])

    def test_the_generator_draws_the_further_ones_too(self):
        starts = []
        for _ in range(2):
            head = small(components=9)
            head.start_from(clusters(500, seeded())[0], seeded(1))
            starts.append(head.mean)
        assert torch.equal(*starts)

    def test_many_latents_go_in_pieces(self, monkeypatch):
        heads = [small(components=9), small(components=9)]
        heads[0].start_from(clusters(500, seeded())[0], seeded(1))
        monkeypatch.setattr(tied_mixture, "_ROWS_AT_ONCE", 4)
        heads[1].start_from(clusters(500, seeded())[0], seeded(1))
        for one, other in zip(*(head.parameters() for head in heads), strict=True):
            torch.testing.assert_close(one, other)

    def test_last_digits_do_not_make_latents_distinct(self):
        head = small(components=6)
        target, places, _ = clusters(500, seeded())
        noisy = target.mean + 1e-6 * torch.randn(target.mean.shape, generator=seeded(2))
        head.start_from(DiagonalGaussian(noisy, target.std), seeded(1))
        assert torch.cdist(places, head.mean.detach()).min(dim=-1).values.max() < 1e-4

    def test_a_component_is_as_wide_as_half_the_way_to_its_neighbour(self):
        head = small(components=2)
        apart = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]).repeat(5, 1)
        head.start_from(apart, seeded())
        want = torch.full((2, 3), math.sqrt(9 / 12))
        torch.testing.assert_close(positive_std(head.raw_std, head.min_std).detach(), want)

    def test_a_component_is_as_wide_as_its_cell(self):
        head = small(components=1)
        spread = torch.tensor([0.5, 2.0, 1.0])
        mean = spread * torch.randn(500, 3, generator=seeded())
        head.start_from(DiagonalGaussian(mean, torch.full_like(mean, 0.3)), seeded(1))
        want = ((mean - head.mean).square().mean(0) + 0.09).sqrt()
        got = positive_std(head.raw_std, head.min_std)[0]
        torch.testing.assert_close(got.detach(), want.detach())
        assert head.network.output.bias[0] == 0

    def test_a_started_head_is_nearer_to_the_latents(self):
        head, (target, *_) = small(components=8), clusters(500, seeded())
        cond = torch.randn(500, 5, generator=seeded(4))
        before = head.loss(cond, target, seeded(5)).mean()
        head.start_from(target, seeded(1))
        assert head.loss(cond, target, seeded(5)).mean() < before - 5

    @pytest.mark.parametrize("scale", [1e-3, 1e3, 1e5])
    def test_latents_may_be_of_another_scale(self, scale):
        head = small(components=20).float()
        latents = scale * torch.randn(200, 3, generator=seeded(), dtype=torch.float32)
        head.start_from(latents, seeded(1))
        cond = torch.randn(200, 5, generator=seeded(2), dtype=torch.float32)
        head.network.output.weight.data.zero_()
        loss = head.loss(cond, latents).mean()
        gaussian = 3 * (math.log(max(scale, 0.1)) + 0.5 * math.log(2 * math.pi) + 0.5)
        assert abs(loss - gaussian) < 3

    @pytest.mark.parametrize("components", [1, 7])
    def test_a_single_latent_is_enough(self, components):
        head = small(components=components)
        head.start_from(torch.ones(1, 3), seeded())
        assert torch.isfinite(head.loss(torch.zeros(2, 5), torch.ones(2, 3))).all()

    def test_a_guided_head_starts_the_head_inside(self):
        with torch.random.fork_rng():
            inner = lambda cond, latent: TiedMixtureHead(cond, latent, width=8, components=3)  # noqa: E731
            head = GuidedHead(5, 3, head=inner).double()
        target, places, _ = clusters(100, seeded(), kinds=3)
        head.start_from(target, seeded())
        assert torch.cdist(places, head.head.mean.detach()).min(dim=-1).values.max() < 1e-9

    def test_latents_of_another_size_and_none_are_refused(self):
        with pytest.raises(ValueError, match="target must have latent_size = 3 dimensions; got 2"):
            small().start_from(torch.zeros(4, 2))
        with pytest.raises(ValueError, match="target must hold at least one latent; got none"):
            small().start_from(torch.zeros(0, 3))

    def test_latents_that_are_not_finite_are_refused(self):
        latents = torch.zeros(4, 3)
        latents[1, 2] = math.nan
        with pytest.raises(NonFiniteError, match=r"target\.mean"):
            small().start_from(latents)


def test_no_optimizer_decays_the_components():
    head = small()
    before = [x.detach().clone() for x in (head.mean, head.raw_std, head.network.output.weight)]
    for parameter in head.parameters():
        parameter.grad = torch.zeros_like(parameter)
    MatrixDecayAdamW(head.parameters(), lr=0.1, weight_decay=0.5).step()
    mean, std, matrix = head.mean, head.raw_std, head.network.output.weight
    assert [torch.equal(*x) for x in zip(before, (mean, std, matrix), strict=True)] == [
        True, True, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": 0}, "components must be at least 1; got 0"),
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"min_std": 0.0}, r"min_std must be in \(0, 1\), where latents have std 1; got 0.0"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TiedMixtureHead(5, 3, **arguments)
