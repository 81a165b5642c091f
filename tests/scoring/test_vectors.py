"""What scores accept besides plain tensors: NumPy arrays, weights, gaps and several axes."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from score_problems import seeds

from calmkit.scoring import (
    GaussianKernel,
    crps,
    dawid_sebastiani_score,
    energy_score,
    kernel_score,
    sliced_crps,
    variogram_score,
)

SAMPLES, BATCH, LATENT = 5, 4, 6


def sliced(samples, observation, **options):
    shape = (3, *observation.shape)
    noise = np.random.default_rng(1).standard_normal(shape)
    is_array = isinstance(samples, np.ndarray)
    return sliced_crps(samples, observation, noise if is_array else torch.tensor(noise), **options)


SCORES = {
    "energy": lambda *data, **options: energy_score(*data, alpha=0.7, **options),
    "kernel": lambda *data, **options: kernel_score(*data, kernel=GaussianKernel(2.0), **options),
    "sliced": sliced,
    "variogram": variogram_score,
    "dawid-sebastiani": dawid_sebastiani_score,
}
each_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
STRETCHING = {name: SCORES[name] for name in ("energy", "kernel", "sliced")}


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(SAMPLES, BATCH, LATENT, generator=generator)
    return samples, torch.randn(BATCH, LATENT, generator=generator), generator


@each_score
@given(seeds)
def test_arrays_give_the_same_numbers_as_an_array(score, seed):
    samples, observation, _ = drawn(seed)
    got = score(samples.numpy(), observation.numpy())
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, score(samples, observation).numpy())


def test_a_read_only_array_with_negative_strides_is_read():
    samples, observation, _ = drawn(0)
    array = samples.numpy()[::-1]
    array.flags.writeable = False
    np.testing.assert_allclose(
        energy_score(array, observation.numpy()), energy_score(samples, observation)
    )


@pytest.mark.parametrize("score", STRETCHING.values(), ids=STRETCHING.keys())
@given(seeds)
def test_weights_stretch_both_vectors(score, seed):
    samples, observation, generator = drawn(seed)
    weights = 3 * torch.rand(LATENT, generator=generator)
    root = torch.tensor([math.sqrt(float(w)) for w in weights])
    want = score(samples * root, observation * root)
    torch.testing.assert_close(score(samples, observation, weights=weights), want)


@given(seeds)
def test_weights_multiply_the_terms_of_dawid_and_sebastiani(seed):
    samples, observation, generator = drawn(seed)
    weights = 3 * torch.rand(LATENT, generator=generator)
    want = sum(
        weights[i] * dawid_sebastiani_score(samples[..., i : i + 1], observation[:, i : i + 1])
        for i in range(LATENT)
    )
    got = dawid_sebastiani_score(samples, observation, weights=weights)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", [name for name in SCORES if name != "sliced"])
@given(seeds)
def test_a_mask_leaves_only_the_observed_dimensions(name, seed):
    samples, observation, generator = drawn(seed)
    mask = torch.rand(BATCH, LATENT, generator=generator) < 0.6
    mask[:, :2] = True  # the variogram needs a pair
    got = SCORES[name](samples, observation, mask=mask)
    for row in range(BATCH):
        seen = mask[row]
        want = SCORES[name](samples[:, row][:, seen], observation[row, seen])
        torch.testing.assert_close(got[row], want)


@given(seeds)
def test_directions_of_a_masked_vector_lie_in_the_observed_dimensions(seed):
    samples, observation, generator = drawn(seed)
    noise = torch.randn(7, BATCH, LATENT, generator=generator)
    mask = torch.tensor([True, False, True, True, False, True]).expand(BATCH, LATENT)
    seen = mask[0]
    want = sliced_crps(samples[..., seen], observation[..., seen], noise[..., seen])
    torch.testing.assert_close(sliced_crps(samples, observation, noise, mask=mask), want)


@each_score
def test_missing_values_have_no_effect_even_as_nan(score):
    samples, observation, _ = drawn(0)
    mask = torch.ones(BATCH, LATENT, dtype=torch.bool)
    mask[1, 3] = mask[2, 0] = False
    want = score(samples, observation, mask=mask)
    hidden = observation.masked_fill(~mask, math.nan)
    samples = samples.masked_fill(~mask, math.inf).requires_grad_()
    got = score(samples, hidden, mask=mask)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(got.sum(), samples)
    assert gradient.isfinite().all()
    assert (gradient[:, ~mask] == 0).all()


@each_score
def test_nothing_observed_scores_zero(score):
    samples, observation, _ = drawn(0)
    mask = torch.ones(BATCH, LATENT, dtype=torch.bool)
    mask[1] = False
    assert score(samples, observation, mask=mask)[1] == 0


@each_score
def test_several_axes_make_up_one_vector(score):
    samples, observation, _ = drawn(0)
    images = samples.reshape(SAMPLES, BATCH, 2, 3), observation.reshape(BATCH, 2, 3)
    mask = torch.ones(BATCH, 2, 3, dtype=torch.bool)
    mask[0, 1, 2] = False
    if score is not sliced:
        got = score(*images, vector_axes=2, mask=mask)
        torch.testing.assert_close(got, score(samples, observation, mask=mask.flatten(1)))
    else:
        noise = torch.randn(3, BATCH, 2, 3, generator=torch.Generator().manual_seed(0))
        got = sliced_crps(*images, noise, vector_axes=2)
        want = sliced_crps(samples, observation, noise.flatten(2))
        torch.testing.assert_close(got, want)


@given(seeds)
def test_weights_have_the_shape_of_the_vector(seed):
    samples, observation, generator = drawn(seed)
    weights = torch.rand(2, 3, generator=generator)
    images = samples.reshape(SAMPLES, BATCH, 2, 3), observation.reshape(BATCH, 2, 3)
    got = energy_score(*images, vector_axes=2, weights=weights)
    want = energy_score(samples, observation, weights=weights.flatten())
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vector_axes": 0}, r"vector_axes must be from 1 to 2, .*; got 0"),
        ({"vector_axes": 3}, r"vector_axes must be from 1 to 2, .*; got 3"),
        ({"weights": torch.ones(5)}, r"weights must have shape \(6,\); got \(5,\)"),
        ({"weights": -torch.ones(6)}, r"weights must not be negative; got -1"),
        ({"weights": torch.full((6,), math.nan)}, r"weights must be finite"),
    ],
)
@pytest.mark.parametrize("name", [name for name in SCORES if name != "variogram"])
def test_what_does_not_fit_is_refused_by_name(name, options, message):
    samples, observation, _ = drawn(0)
    with pytest.raises(ValueError, match=message):
        SCORES[name](samples, observation, **options)


def test_weights_of_pairs_are_checked():
    samples, observation, _ = drawn(0)
    with pytest.raises(ValueError, match=r"weights must have shape \(6, 6\).*got \(5, 5\)"):
        variogram_score(samples, observation, weights=torch.ones(5, 5))


@given(seeds, st.floats(-1.0, 0.4), st.floats(0.5, 2.0))
def test_crps_between_thresholds_is_the_integral_over_them(seed, low, high):
    """int_low^high (F(t) - [y <= t])^2 dt, its square of F estimated from pairs of draws."""
    samples, observation, _ = drawn(seed)
    x, y = samples[:, 0, 0], observation[0, 0]
    ends = sorted([low, high, *(float(v) for v in (*x, y) if low < v < high)])
    want = 0.0
    for left, right in itertools.pairwise(ends):
        at = (left + right) / 2
        below = int((x <= at).sum())
        square = below * (below - 1) / (SAMPLES * (SAMPLES - 1))
        hit = float(y <= at)
        want += (right - left) * (square - 2 * hit * below / SAMPLES + hit)
    got = crps(samples, observation, between=(low, high))[0, 0]
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-9, atol=1e-12)


def test_crps_between_infinite_thresholds_is_the_crps():
    samples, observation, _ = drawn(0)
    everywhere = crps(samples, observation, between=(-math.inf, math.inf))
    assert (everywhere == crps(samples, observation)).all()
    with pytest.raises(
        ValueError, match=r"between must be an interval \(low, high\); got \(1, 1\)"
    ):
        crps(samples, observation, between=(1, 1))
