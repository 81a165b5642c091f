"""Blocks of a latent: the chain rule, and laws whose blocks depend on each other."""

import pytest
import torch
from head_instances import energy_head, tied_mixture
from seeding import randomized, seeded
from short_training import energy_distance

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import (
    BlockwiseHead,
    EnergyHead,
    FlowHead,
    GaussianHead,
    HeunSolver,
    MidpointSolver,
    TiedMixtureHead,
)
from calmkit.saving import load, save

COND, LATENT = 5, 6


def blockwise(head=tied_mixture, *, blocks=3):
    """A head whose blocks read those before them."""
    return randomized(BlockwiseHead(COND, LATENT, head=head, blocks=blocks)).double()


def problem(*batch):
    cond = torch.randn(*batch, COND, generator=seeded(1))
    mean = torch.randn(*batch, LATENT, generator=seeded(2))
    return cond, DiagonalGaussian(mean, torch.full_like(mean, 0.5))


def conditions(head, cond, latents):
    """The condition of each block, retyped for three blocks of two dimensions."""
    second, third = head.from_earlier
    return (
        cond,
        cond + latents[..., :2] @ second.weight.T + second.bias,
        cond + latents[..., :4] @ third.weight.T + third.bias,
    )


def test_density_is_the_product_of_the_blocks_densities():
    head, (cond, target) = blockwise(), problem(4)
    z = target.mean
    want = torch.zeros(4)
    for block, given in enumerate(conditions(head, cond, z)):
        want += head.heads[block].log_prob(given, z[:, 2 * block : 2 * block + 2])
    torch.testing.assert_close(head.log_prob(cond, z), want)
    # Of a point there is one draw.
    torch.testing.assert_close(head.loss(cond, z, seeded()), -want)


def test_loss_sums_the_blocks_losses_given_the_true_blocks_before():
    head, (cond, target) = blockwise(energy_head), problem(4)
    latents, generator = torch.randn(4, LATENT, generator=seeded(3)), seeded(4)
    want = torch.zeros(4)
    for block, given in enumerate(conditions(head, cond, latents)):
        part = slice(2 * block, 2 * block + 2)
        own = DiagonalGaussian(target.mean[:, part], target.std[:, part])
        want += head.heads[block].loss(given, own, generator)
    torch.testing.assert_close(head.loss_from(cond, target, latents, seeded(4)), want)


def test_loss_is_the_mean_of_minus_log_p_over_the_target():
    """With an inner loss that is a closed form, too, whose draws are not those of the blocks."""
    for kind in (tied_mixture, lambda cond, latent: GaussianHead(cond, latent, width=8, depth=1)):
        head, (cond, target) = blockwise(kind), problem(1)
        rows = 40_000
        cond, mean, std = (x.expand(rows, -1) for x in (cond, target.mean, target.std))
        of_target = head.loss(cond, DiagonalGaussian(mean, std), seeded(5))
        z = DiagonalGaussian(mean, std).sample(1, seeded(6))[0]
        of_points = -head.log_prob(cond, z)
        error = (of_target.var() / rows + of_points.var() / rows).sqrt()
        assert (of_target.mean() - of_points.mean()).abs() < 4.5 * error


def test_a_block_is_drawn_given_the_blocks_before_it():
    head, (cond, _) = blockwise(), problem(4)
    latents = head.sample(cond, 3, seeded())
    generator, want = seeded(), torch.empty(3, 4, 0)
    want = head.heads[0].sample(cond, 3, generator)
    for block in (1, 2):
        given = conditions(head, cond.expand(3, 4, COND), torch.cat([want, want, want], -1))[block]
        want = torch.cat([want, head.heads[block].sample(given, 1, generator)[0]], dim=-1)
    torch.testing.assert_close(latents, want)


def copied(count, generator):
    """Two blocks of one dimension, the same sign twice."""
    sign = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    return sign.expand(-1, 2) + 0.1 * torch.randn(count, 2, generator=generator)


def test_it_learns_that_a_block_depends_on_the_one_before():
    torch.manual_seed(0)
    small = lambda cond, latent: TiedMixtureHead(cond, latent, width=16, depth=1, components=4)  # noqa: E731
    head, generator = BlockwiseHead(1, 2, head=small).double(), seeded()
    head.start_from(copied(200, generator), generator)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(torch.ones(64, 1), copied(64, generator), generator).mean().backward()
        optimizer.step()
    with torch.no_grad():
        x, y = head.sample(torch.ones(1, 1), 1000, generator), copied(1000, generator)
        apart = torch.stack([y[:, 0], y[torch.randperm(1000, generator=generator), 1]], dim=-1)
    assert energy_distance(x, y[:, None]) < 0.02
    # Independent blocks with the same two laws.
    assert energy_distance(apart[:, None], y[:, None]) > 0.2
    assert ((x[:, 0, 0] > 0) == (x[:, 0, 1] > 0)).double().mean() > 0.97


def test_each_head_starts_on_its_part_of_the_latents():
    kinds = torch.randn(4, LATENT, generator=seeded(3))
    target = kinds.repeat(5, 1)
    head = blockwise()
    head.start_from(target, seeded())
    for block, inner in enumerate(head.heads):
        part = kinds[:, 2 * block : 2 * block + 2]
        assert torch.cdist(part, inner.mean).min(dim=-1).values.max() < 1e-9


def test_the_generator_is_all_the_randomness_of_a_start():
    target, starts = torch.randn(20, LATENT, generator=seeded(3)), []
    for _ in range(2):
        head = blockwise()
        head.start_from(target, seeded())
        starts.append(torch.cat([inner.mean for inner in head.heads]))
    assert torch.equal(*starts)


def test_at_the_start_every_head_sees_the_condition_as_it_is():
    head, (cond, target) = BlockwiseHead(COND, LATENT, head=energy_head).double(), problem(4)
    seen = []
    for inner in head.heads:
        inner.loss = lambda cond, *rest: seen.append(cond) or cond.sum(dim=-1)
    head.loss(cond, target)
    assert all(torch.equal(x, cond) for x in seen) and len(seen) == 2


def test_its_sampling_settings_are_those_of_every_block(tmp_path):
    make = lambda cond, latent: FlowHead(cond, latent, width=4, solver=MidpointSolver(2))  # noqa: E731
    head, (cond, _) = blockwise(make), problem(4)
    other = head.with_sampling(solver=HeunSolver(3))
    assert [inner.solver for inner in other.heads] == [HeunSolver(3)] * 3
    assert [inner.solver for inner in head.heads] == [MidpointSolver(2)] * 3
    assert (head.evaluations_per_sample, other.evaluations_per_sample) == (3 * 4, 3 * 6)
    assert all(a is b for a, b in zip(head.parameters(), other.parameters(), strict=True))
    assert other.sampling_settings == {**head.sampling_settings, "solver": HeunSolver(3)}
    save(other, tmp_path)
    loaded = load(tmp_path, BlockwiseHead)
    assert loaded.sampling_settings == other.sampling_settings
    assert torch.equal(loaded.sample(cond, 2, seeded()), other.sample(cond, 2, seeded()))
    with pytest.raises(ValueError, match="steps must be one of the settings that BlockwiseHead"):
        head.with_sampling(steps=3)


def test_evaluations_that_depend_on_the_data_stay_unknown():
    class Adaptive(EnergyHead):
        evaluations_per_sample = None

    head = BlockwiseHead(COND, LATENT, head=lambda cond, latent: Adaptive(cond, latent, width=4))
    assert head.evaluations_per_sample is None


def test_it_has_a_density_only_if_its_heads_have_one():
    head = blockwise(energy_head)
    assert hasattr(blockwise(), "log_prob") and not hasattr(head, "log_prob")
    with pytest.raises(AttributeError, match=r"log_prob of BlockwiseHead .* EnergyHead has none"):
        head.log_prob(*problem(4))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (4, "blocks must divide latent_size = 6; got 4"),
        (0, "blocks must be at least 1; got 0"),
    ],
)
def test_blocks_that_do_not_divide_the_latent_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseHead(COND, LATENT, blocks=blocks)
