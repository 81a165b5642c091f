"""Predictions: each output fixes the clean x, and an error of it moves x by the gain."""

import pytest
import torch
from seeding import seeded

from calmkit.heads.prediction import CleanPrediction, NoisePrediction, VelocityPrediction

PREDICTIONS = (VelocityPrediction(), NoisePrediction(), CleanPrediction())


def test_outputs_are_those_of_the_table():
    clean, noise, angle = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]), torch.tensor(0.7)
    a, b = angle.cos(), angle.sin()
    gains = {"NoisePrediction": b / a, "VelocityPrediction": b, "CleanPrediction": 1.0}
    for prediction in PREDICTIONS:
        target = prediction.target(clean, noise, a, b)
        for i in range(2):
            x, eps = float(clean[i]), float(noise[i])
            want = {
                "NoisePrediction": eps,
                "VelocityPrediction": float(a) * eps - float(b) * x,
                "CleanPrediction": x,
            }
            assert float(target[i]) == pytest.approx(want[type(prediction).__name__])
        assert float(prediction.gain(a, b)) == pytest.approx(
            float(gains[type(prediction).__name__])
        )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_prediction_gives_back_the_clean_vector(prediction):
    clean, noise = torch.randn(2, 7, 3, generator=seeded(1))
    signal = torch.rand(7, 1, generator=seeded(2))
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    a, b = signal.sqrt(), (1 - signal).sqrt()
    target = prediction.target(clean, noise, a, b)
    torch.testing.assert_close(prediction.clean(target, noisy, a, b), clean)
    # An error of the output moves it by `gain` times as much.
    off = prediction.clean(target + 0.1, noisy, a, b) - clean
    torch.testing.assert_close(off.abs(), 0.1 * prediction.gain(a, b).expand(7, 3))


def test_velocity_is_the_derivative_along_the_arc():
    """With a = cos(angle) and b = sin(angle), d x_t / d angle = a noise - b clean."""
    clean, noise = torch.randn(2, 3, generator=seeded(1))
    angle = torch.full((3,), 0.7, requires_grad=True)
    (angle.cos() * clean + angle.sin() * noise).sum().backward()
    fixed = angle.detach()
    target = VelocityPrediction().target(clean, noise, fixed.cos(), fixed.sin())
    torch.testing.assert_close(target, angle.grad)
