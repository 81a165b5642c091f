"""The account of a CALM: what it holds, and what it leaves alone."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from calmkit.accounting import account
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.heads import AdaptiveSolver, EnergyHead, EulerSolver, FlowHead
from calmkit.models import CALM, ChunkEmbedding

CONTEXT = 6


def model(head=None, *, vocab=13, chunk=3, hidden=8, latent=5):
    torch.manual_seed(0)
    return CALM(
        autoencoder=MLPAutoencoder(chunk, vocab, latent, width=8),
        input_encoder=ChunkEmbedding(vocab, chunk, hidden),
        backbone=TransformerBackbone(hidden, depth=2, heads=2),
        head=head or EnergyHead(hidden, latent, width=8, depth=2, num_samples=3),
    )


def test_parameters():
    tiny = model()
    ours = account(tiny, context=CONTEXT)
    parts = ("autoencoder", "input_encoder", "backbone", "head")
    assert ours.parameters == {
        part: sum(p.numel() for p in tiny.get_submodule(part).parameters()) for part in parts
    }
    assert ours.trained_parameters == sum(ours.parameters[part] for part in parts[1:])


def test_a_weight_that_two_parts_share_counts_once():
    tiny = model()
    tiny.autoencoder.embedding.weight = tiny.input_encoder.tokens.weight
    ours = account(tiny, context=CONTEXT)
    assert sum(ours.parameters.values()) == sum(p.numel() for p in tiny.parameters())


def test_inference_is_the_formula():
    """Of a Transformer, by hand: 2 per weight of a linear layer, 4 context hidden per layer."""
    tiny = model()
    ours = account(tiny, context=CONTEXT)

    def products(module):
        return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))

    autoencoder = tiny.autoencoder
    blocks = products(autoencoder.decoder_chunk_blocks) + 3 * products(
        autoencoder.decoder_token_blocks
    )
    decoding = products(autoencoder.from_latent) + blocks + products(autoencoder.expand)
    decoding += 2 * 3 * 8 * 13
    expected = {
        "input_encoder": products(tiny.input_encoder),
        "backbone": products(tiny.backbone) + 2 * 4 * CONTEXT * 8,
        "head": products(tiny.head),
        "autoencoder": decoding,
    }
    assert ours.inference_flops() == pytest.approx({k: v / 3 for k, v in expected.items()})


def test_candidates_and_the_share_that_is_decoded():
    ours = account(model(), context=CONTEXT)
    once, often = ours.inference_flops(), ours.inference_flops(7.5, 0.25)
    head = ours.first_sample_flops
    for _ in range(13):
        head += ours.next_sample_flops / 2
    assert often["head"] == pytest.approx(head / 3)
    assert often["autoencoder"] == pytest.approx(
        7.5 * (ours.starting_flops + ours.decoding_flops / 4) / 3
    )
    assert often["backbone"] == once["backbone"]
    assert often["input_encoder"] == once["input_encoder"]


def test_pruned_decoding_is_as_measured():
    """Three of five candidates are dropped after their first token, the others decoded."""
    tiny = model().eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        draws = tiny.draws(torch.zeros(1, 8)).undecoded(5)
        for place, chosen in ((0, range(5)), (1, range(2)), (2, range(2))):
            draws.tokens_at(range(place, place + 1), torch.tensor(list(chosen)))
    ours = account(tiny, context=CONTEXT).inference_flops(5, 9 / 15)
    assert 3 * (ours["head"] + ours["autoencoder"]) == pytest.approx(counter.get_total_flops())


def test_a_head_that_iterates_costs_its_evaluations():
    counts = [
        account(
            model(FlowHead(8, 5, width=8, depth=1, solver=EulerSolver(steps))), context=CONTEXT
        ).next_sample_flops
        for steps in (1, 2, 5)
    ]
    assert counts[2] - counts[1] == 3 * (counts[1] - counts[0]) > 0


def test_the_model_is_left_alone_wherever_it_is():
    """Also on the meta device, where it has no memory, the account is the same."""
    tiny = model().train()
    before = {name: x.clone() for name, x in tiny.state_dict().items()}
    ours = account(tiny, context=CONTEXT)
    for name, x in tiny.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in tiny.parameters())
    assert tiny.training and tiny.head.training
    assert account(tiny.eval(), context=CONTEXT) == ours
    assert account(tiny.to("meta"), context=CONTEXT) == ours


class WorkInTraining(nn.Module):
    """A product more in training mode, for 5 features."""

    def forward(self, x):
        return x @ torch.eye(5) if self.training else x


def test_training_is_in_training_mode_and_sampling_is_not():
    plain, more = model(), model().eval()
    more.head.output.append(WorkInTraining())
    plain, more = account(plain, context=CONTEXT), account(more, context=CONTEXT)
    assert more.training_flops["head"] > plain.training_flops["head"]
    assert more.inference_flops(3) == plain.inference_flops(3)


def test_no_number_is_drawn():
    tiny, state = model(), torch.get_rng_state()
    account(tiny, context=CONTEXT)
    assert torch.equal(torch.get_rng_state(), state)


def test_bytes_are_those_of_the_number_format():
    wide = account(model(), context=CONTEXT)
    narrow = account(model().to(torch.bfloat16), context=CONTEXT)
    assert (wide.cache_bytes, narrow.cache_bytes) == (2 * 2 * 8 * 8, 2 * 2 * 8 * 2)
    assert narrow.activation_bytes["backbone"] < wide.activation_bytes["backbone"] / 2
    # The score's own sums are in another precision, with other products.
    assert narrow.inference_flops(3) == wide.inference_flops(3)
    assert narrow.training_flops["backbone"] == wide.training_flops["backbone"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: account(model(), context=1), "context must be at least 2 .*; got 1"),
        (
            lambda: account(
                model(FlowHead(8, 5, width=8, depth=1, solver=AdaptiveSolver())), context=4
            ),
            "fixed number of times .* the number varies for FlowHead. Give it a solver",
        ),
        (
            lambda: account(model(), context=4).inference_flops(0.5),
            "candidates must be at least 1; got 0.5",
        ),
        (
            lambda: account(model(), context=4).inference_flops(2, 1.5),
            r"decoded_share must be in \[0, 1\]; got 1.5",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
