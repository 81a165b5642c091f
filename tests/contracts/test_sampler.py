"""The suite of samplers over all exported ones."""

import inspect

from sampler_instances import SAMPLERS

import calmkit.sampling
from calmkit.testing import parametrize_contracts
from calmkit.testing.finding import kind_of


def test_every_exported_sampler_is_here():
    classes = {value for value in vars(calmkit.sampling).values() if inspect.isclass(value)}
    protocols = {calmkit.sampling.Sampler}
    assert {value for value in classes if kind_of(value) == "sampler"} - protocols == set(SAMPLERS)


@parametrize_contracts(
    "sampler",
    {kind.__name__: make for kind, make in SAMPLERS.items()},
    exempt={
        "BatchTemperature/law_is_tempered": "exact for many candidates; see tests/sampling",
        "MostFrequent/law_is_tempered": "it takes the mode, at no temperature",
    },
    profile="quick",
)
def test_contract(check):
    check()
