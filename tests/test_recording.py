"""What a part records of its construction shows when it is printed; a part is no factory."""

import pytest
from head_instances import HEADS

from calmkit.autoencoders import MLPAutoencoder, TokenwiseAutoencoder
from calmkit.features import SteeredHead
from calmkit.heads import (
    BlockwiseHead,
    DiffusionHead,
    EnergyHead,
    FlowHead,
    GuidedHead,
    HeunSolver,
)
from calmkit.scoring import EnergyScore


def first_line(part):
    return repr(part).splitlines()[1].strip()


def test_a_head_prints_its_settings_with_defaults_and_rule():
    head = EnergyHead(5, 3, width=8, rule=EnergyScore(0.7))
    assert first_line(head).startswith("cond_size=5, latent_size=3, width=8, depth=")
    assert "num_samples=8" in first_line(head)
    assert "rule=EnergyScore(alpha=0.7)" in first_line(head)


def test_a_setting_is_shown_as_it_is_now():
    head = FlowHead(5, 3, width=8).with_sampling(solver=HeunSolver(3))
    assert "solver=HeunSolver(steps=3)" in first_line(head)


def test_a_long_setting_is_one_word():
    head = DiffusionHead(5, 3, width=8)
    assert "schedule=CosineSchedule(1000 of 1000 steps)" in first_line(head)
    assert all(len(first_line(make(5, 3))) < 500 for make in HEADS.values())


def test_modules_stay_below_the_settings():
    head = GuidedHead(5, 3, head=lambda cond, latent: FlowHead(cond, latent, width=8))
    assert "dropout=0.1" in first_line(head)
    assert "(head): FlowHead(" in repr(head)
    assert "FlowHead" not in first_line(head)


def test_other_parts_print_theirs():
    assert "kl_weight=0.001" in first_line(MLPAutoencoder(2, 7, 3, width=8))


@pytest.mark.parametrize("wrapper", [BlockwiseHead, GuidedHead, SteeredHead])
def test_a_head_that_is_built_cannot_build_others(wrapper):
    message = r"head must be what builds .* such as the class FlowHead or .* built already"
    with pytest.raises(ValueError, match=message):
        wrapper(6, 4, head=FlowHead(6, 4, width=8))


@pytest.mark.parametrize("wrapper", [BlockwiseHead, GuidedHead, SteeredHead])
def test_nor_can_a_name(wrapper):
    with pytest.raises(ValueError, match=r"head must be what builds .* or a function; got 'Flow'"):
        wrapper(6, 4, head="Flow")


@pytest.mark.parametrize(
    "built", [MLPAutoencoder(1, 7, 2, width=8), "MLPAutoencoder"], ids=["built", "name"]
)
def test_nor_can_an_autoencoder(built):
    with pytest.raises(ValueError, match="autoencoder must be what builds a part from its sizes"):
        TokenwiseAutoencoder(2, 7, 4, autoencoder=built)
