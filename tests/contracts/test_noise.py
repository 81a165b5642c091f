"""The suite of noises over all exported ones."""

from exported import exported_finals

from calmkit import heads
from calmkit.heads import GaussianNoise, Noise, UniformNoise
from calmkit.testing import parametrize_contracts

NOISES = (GaussianNoise, UniformNoise)


def test_every_exported_noise_is_here():
    assert {noise.__name__ for noise in NOISES} == exported_finals(heads, Noise)


@parametrize_contracts("noise", {noise.__name__: noise for noise in NOISES}, profile="quick")
def test_contract(check):
    check()
