"""Steered heads: the contracts of a head, shifts that are known, and tokens that they make."""

import pytest
import torch
from calm_models import HIDDEN, energy_head, tiny
from rounding import RoundingAutoencoder, normal

from calmkit.backbones import TransformerBackbone
from calmkit.features import BestToken, SteeredHead, steered, write_steered
from calmkit.heads import EnergyHead, FlowHead, Head
from calmkit.models import CALM, ChunkEmbedding
from calmkit.testing import check_part


def test_keeps_the_contracts_of_a_head():
    def factory(cond_size, latent_size):
        return SteeredHead(
            cond_size, latent_size,
            head=lambda cond, latent: EnergyHead(cond, latent, width=16, depth=1),
        )  # fmt: skip

    report = check_part("head", factory, profile="quick")
    assert report.passed, str(report)


def shifted(head, *, strength=1.5):
    """A head that is steered by known directions."""
    found = SteeredHead(4, 3, head=lambda *_: head, strength=strength)
    found.cond_direction.copy_(normal(4, seed=1))
    found.latent_direction.copy_(normal(3, seed=2))
    return found


def generator():
    return torch.Generator().manual_seed(0)


def test_samples_are_those_of_the_shifted_condition_and_are_shifted():
    head, cond = EnergyHead(4, 3, width=8), normal(5, 4)
    found = shifted(head).sample(cond, 2, generator())
    want = head.sample(cond + 1.5 * normal(4, seed=1), 2, generator()) + 1.5 * normal(3, seed=2)
    torch.testing.assert_close(found, want)


def test_no_strength_is_the_head_and_the_loss_is_not_steered():
    head, cond, target = EnergyHead(4, 3, width=8), normal(5, 4), normal(5, 3)
    steered_head = shifted(head)
    still = steered_head.with_sampling(strength=0.0)
    assert torch.equal(still.sample(cond, 2, generator()), head.sample(cond, 2, generator()))
    assert steered_head.strength == 1.5
    losses = [one.loss(cond, target, generator()) for one in (steered_head, head)]
    assert torch.equal(*losses)


def test_settings_of_the_wrapped_head_can_be_changed():
    found = shifted(FlowHead(4, 3, width=8)).with_sampling(noise_scale=0.5, strength=2.0)
    assert found.sampling_settings["noise_scale"] == found.head.noise_scale == 0.5
    assert found.sampling_settings["strength"] == 2.0
    assert found.evaluations_per_sample == found.head.evaluations_per_sample


def test_an_infinite_strength_is_refused():
    with pytest.raises(ValueError, match=r"strength must be in \(-inf, inf\); got inf"):
        SteeredHead(4, 3, strength=float("inf"))


class TestModel:
    def test_shares_weights_and_leaves_the_model_alone(self):
        model = tiny(build_head=energy_head).eval()
        head = model.head
        options = {"prompts": [[1, 2, 3]], "max_new_tokens": 9}
        before = model.generate(**options, generator=generator())
        other = steered(model, latent_direction=10 * torch.ones(6), strength=3.0)
        assert model.head is head and other.backbone is model.backbone
        assert other.head.head is head
        assert other.generate(**options, generator=generator()) != before
        assert model.generate(**options, generator=generator()) == before
        still = steered(model, cond_direction=torch.ones(HIDDEN), strength=0.0)
        assert still.generate(**options, generator=generator()) == before

    def test_a_direction_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"latent_direction must have shape \(6,\); got \(5,"):
            steered(tiny(), latent_direction=torch.zeros(5))


class Constant(Head):
    """Draws zero, or what is large in its condition."""

    evaluations_per_sample = 1

    def __init__(self, cond_size, latent_size, *, reads=False):
        super().__init__(cond_size, latent_size)
        self.reads = reads

    def loss(self, cond, target, generator=None):
        raise NotImplementedError

    def sample(self, cond, num_samples, generator=None):
        read = cond[..., : self.latent_size]
        # Of a state, what a shift of hundreds adds: states themselves are small.
        read = (read / 100).round() if self.reads else torch.zeros_like(read)
        return read.expand(num_samples, *cond.shape[:-1], self.latent_size)


class Digits:
    def decode(self, tokens):
        return "".join(map(str, tokens))


@pytest.mark.parametrize("of_states", [False, True])
def test_steering_makes_the_token_of_a_known_direction(of_states):
    """A latent is its tokens; the direction adds 2 to the second one."""
    model = CALM(
        autoencoder=RoundingAutoencoder(2, 9),
        input_encoder=ChunkEmbedding(9, 2, HIDDEN),
        backbone=TransformerBackbone(HIDDEN, depth=1, heads=2),
        head=Constant(HIDDEN, 2, reads=of_states),
    ).eval()
    direction = torch.tensor([0.0, 2.0])
    if of_states:
        direction = 100 * torch.nn.functional.pad(direction, (0, HIDDEN - 2))
    prompts = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]]
    found = write_steered(
        model, BestToken(0, 1, 4, 1.0, 1.0), direction, prompts, Digits(),
        of_states=of_states, strengths=(0.0, 1.0, 2.0), chunks=3, seed=0,
    )  # fmt: skip
    assert [one.rate.value for one in found] == [0.0, 0.0, 1.0]
    assert [one.text for one in found] == [f"[1234]{pair * 3}" for pair in ("00", "02", "04")]
    assert [one.different for one in found] == [1 / 9] * 3
