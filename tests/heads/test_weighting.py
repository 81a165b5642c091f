"""Loss weights: the published formulas, one loss for all predictions, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.heads.prediction import CleanPrediction, NoisePrediction, VelocityPrediction
from calmkit.heads.schedule import CosineSchedule, ZeroTerminalSNR
from calmkit.heads.weighting import MinSNRWeighting, UniformWeighting

PREDICTIONS = [NoisePrediction(), VelocityPrediction(), CleanPrediction()]


@given(st.floats(0.01, 100.0), st.sampled_from(PREDICTIONS), st.integers(1, 30))
def test_min_snr_is_the_published_formula(gamma, prediction, length):
    schedule = CosineSchedule(length)
    want = []
    for abar in schedule.alphas_bar.tolist():
        snr = abar / (1 - abar)
        least = min(snr, gamma)
        want.append(
            {
                NoisePrediction(): least / snr,
                VelocityPrediction(): least / (snr + 1),
                CleanPrediction(): least,
            }[prediction]
        )
    got = MinSNRWeighting(gamma).weights(schedule, prediction)
    torch.testing.assert_close(got, torch.tensor(want))


def test_min_snr_is_one_loss_for_all_predictions():
    """An error of the clean x costs the same, whichever output it was computed from."""
    schedule, generator = CosineSchedule(20), torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, 20, 4, generator=generator)
    a, b = schedule.signal_scale[:, None], schedule.noise_scale[:, None]
    noisy = a * clean + b * noise
    losses = []
    for prediction in PREDICTIONS:
        # The output that stands for the wrong clean x at this x_t.
        output = prediction.target(wrong, (noisy - a * wrong) / b, a, b)
        torch.testing.assert_close(prediction.clean(output, noisy, a, b), wrong)
        error = (output - prediction.target(clean, noise, a, b)).square().sum(dim=-1)
        losses.append(MinSNRWeighting(2.0).weights(schedule, prediction) * error)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_uniform_weights_are_one(prediction):
    schedule = CosineSchedule(7)
    assert torch.equal(UniformWeighting().weights(schedule, prediction), torch.ones(7))


def test_min_snr_does_not_train_a_step_without_signal():
    schedule = ZeroTerminalSNR(CosineSchedule(7))
    weights = MinSNRWeighting().weights(schedule, VelocityPrediction())
    assert weights[-1] == 0 and (weights[:-1] > 0).all()


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match=f"gamma must be positive and finite; got {gamma}"):
        MinSNRWeighting(gamma)
