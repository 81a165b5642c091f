"""The suite of attention backends over all of calmkit's; two need a GPU, and say so."""

from calmkit.attention import backends
from calmkit.attention.reference import reference_attention
from calmkit.attention.sdpa import sdpa_attention
from calmkit.attention.varlen import varlen_attention, varlen_refusal
from calmkit.attention.xformers import xformers_attention, xformers_refusal
from calmkit.testing import parametrize_contracts

BACKENDS = {
    "xformers": lambda: (xformers_attention, xformers_refusal),
    "varlen": lambda: (varlen_attention, varlen_refusal),
    "sdpa": lambda: sdpa_attention,
    "reference": lambda: reference_attention,
}


def test_every_backend_is_here():
    assert set(backends._BACKENDS) == set(BACKENDS)


@parametrize_contracts("attention", BACKENDS, profile="quick")
def test_contract(check):
    check()
