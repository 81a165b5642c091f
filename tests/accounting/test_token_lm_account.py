"""The account of a softmax over tokens, against real training and decoding steps."""

import pytest
import torch
from backbone_instances import BACKBONES
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from calmkit.accounting import account_token_lm
from calmkit.chunking import ChunkBatch
from calmkit.models import TokenLM

VOCAB, CONTEXT = 11, 6
every_backbone = pytest.mark.parametrize("build", BACKBONES.values(), ids=BACKBONES)


@every_backbone
@pytest.mark.parametrize("tied", [False, True])
def test_training(build, tied):
    model = TokenLM(VOCAB, backbone=build(), tie_embeddings=tied)
    tokens = torch.zeros(1, CONTEXT, 1, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss(ChunkBatch(tokens, tokens == 0, ((CONTEXT,),))).total.backward()
    ours = account_token_lm(model, context=CONTEXT)
    assert sum(ours.training_flops.values()) * CONTEXT == pytest.approx(
        counter.get_total_flops(), rel=1e-12
    )
    assert sum(ours.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert ours.trained_parameters == sum(p.numel() for p in model.parameters())
    assert ours.parameters["output"] == (0 if tied else VOCAB * 8)


@every_backbone
def test_inference(build):
    """A real step behind a full cache."""
    model = TokenLM(VOCAB, backbone=build()).eval().requires_grad_(False)
    cache = model.backbone.new_cache(1, CONTEXT)
    model.backbone(torch.zeros(1, CONTEXT - 1, 8), cache=cache)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        token = torch.zeros(1, 1, 1, dtype=torch.long)
        vectors = model.input_encoder(token, token == 0)
        model.draws(model.backbone(vectors, cache=cache)[:, 0])(1)
    ours = account_token_lm(model, context=CONTEXT)
    assert sum(ours.inference_flops().values()) == pytest.approx(counter.get_total_flops())
    assert set(ours.inference_flops()) == {"input_encoder", "backbone", "output"}
    assert ours.inference_flops(200) == ours.inference_flops()  # one softmax is enough


def test_kept_bytes_of_the_output_layer():
    """States and logarithms of probabilities; targets and a scalar are a few bytes more."""
    ours = account_token_lm(TokenLM(500, backbone=BACKBONES["MinGRUBackbone"]()), context=CONTEXT)
    large = 8 * (CONTEXT * 8 + (CONTEXT - 1) * 500)
    assert large <= ours.activation_bytes["output"] <= large + 8 * (CONTEXT + 1)


def test_refusals():
    with pytest.raises(ValueError, match=r"context must be at least 2 .*; got 1"):
        account_token_lm(TokenLM(3, backbone=BACKBONES["MinGRUBackbone"]()), context=1)
