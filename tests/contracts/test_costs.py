"""A dry run costs what a real one does, for every exported head, backbone and autoencoder."""

import pytest
import torch
from autoencoder_instances import AUTOENCODERS
from backbone_instances import BACKBONES
from head_instances import HEADS
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from calmkit.accounting import account
from calmkit.accounting.cost import Cost, cache_bytes_per_position, cost_of
from calmkit.accounting.dry_run import DryRun
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead, FlowHead, MixtureHead
from calmkit.models import CALM, ChunkEmbedding

COND, LATENT = 7, 5


def head_loss(head):
    cond = torch.zeros(3, 4, COND, dtype=dtype_of(head), requires_grad=True)
    mean = torch.zeros(3, 4, LATENT, dtype=cond.dtype)
    return head.loss(cond, DiagonalGaussian(mean, mean + 1))


def head_samples(head):
    with torch.no_grad():
        return head.sample(torch.zeros(2, COND, dtype=dtype_of(head)), 3)


def states(backbone):
    return backbone(torch.zeros(2, 6, 8, dtype=dtype_of(backbone), requires_grad=True))


def autoencoder_loss(autoencoder):
    return autoencoder.loss(torch.zeros(2, 4, 3, dtype=torch.long)).total


def round_trip(autoencoder):
    with torch.no_grad():
        posterior = autoencoder.encode(torch.zeros(2, 3, dtype=torch.long))
        return autoencoder.decode_tokens(posterior.mean)


def dtype_of(module):
    return next(module.parameters()).dtype


def real_cost(module, compute):
    """The same with real tensors: torch's own counter, attention as plain products."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = compute(module)
        forward = counter.get_total_flops()
        if result.requires_grad:
            result.sum().backward()
    module.zero_grad()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        compute(module)
    for tensor in (*module.parameters(), *module.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    return Cost(forward, counter.get_total_flops() - forward, kept_bytes)


def dry_cost(module, compute):
    run = DryRun()
    outline = run.outline(module).train(module.training)
    with run:
        weights = [*outline.parameters(), *outline.buffers()]
        return cost_of(run, lambda: compute(outline), weights=weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("compute", [head_loss, head_samples], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", list(HEADS), ids=lambda kind: kind.__name__)
def test_heads(kind, compute, dtype):
    # The oracle cannot follow views of parameters where nothing has a gradient.
    head = HEADS[kind](COND, LATENT).to(dtype).requires_grad_(compute is head_loss)
    assert dry_cost(head, compute) == real_cost(head, compute)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_backbones(name):
    backbone = BACKBONES[name]()
    assert dry_cost(backbone, states) == real_cost(backbone, states)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_step_at_full_context_is_a_position_of_a_row(name):
    """What `account` takes for a decoding step, against a real one with a cache."""
    backbone = BACKBONES[name]().eval()
    vectors = torch.zeros(1, 6, 8)
    cache = backbone.new_cache(1, 6)
    with torch.no_grad():
        backbone(vectors[:, :5], cache=cache)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            backbone(vectors[:, 5:], cache=cache)
    row = dry_cost(backbone, lambda outline: outline(torch.zeros(1, 6, 8)))
    assert row.forward == 6 * counter.get_total_flops()


@pytest.mark.parametrize("name", list(BACKBONES))
def test_caches(name):
    """The cache's memory, against its tensors' own for one row and one position."""
    backbone = BACKBONES[name]()
    run = DryRun()
    outline = run.outline(backbone)
    with run:
        per_position = cache_bytes_per_position(outline)
    stores = [x for x in vars(backbone.new_cache(1, 1)).values() if isinstance(x, torch.Tensor)]
    assert per_position == sum(x.nbytes for x in stores if x.is_floating_point()) > 0


@pytest.mark.parametrize("compute", [autoencoder_loss, round_trip], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", list(AUTOENCODERS))
def test_autoencoders(name, compute):
    # As for heads: the oracle cannot follow views of parameters where nothing has a gradient.
    autoencoder = AUTOENCODERS[name]().requires_grad_(compute is autoencoder_loss)
    assert dry_cost(autoencoder, compute) == real_cost(autoencoder, compute)


def tiny(kind, **weights):
    torch.manual_seed(0)
    return CALM(
        autoencoder=MLPAutoencoder(3, 11, LATENT, width=8),
        input_encoder=ChunkEmbedding(11, 3, 8),
        backbone=TransformerBackbone(8, depth=2, heads=4, kv_heads=2),
        head=HEADS[kind](8, LATENT),
        **weights,
    ).train()


@pytest.mark.parametrize("kind", list(HEADS), ids=lambda kind: kind.__name__)
def test_training_of_a_whole_model(kind):
    """The parts of an account add up to what a real training step costs."""
    context = 5
    tokens = torch.zeros(1, context, 3, dtype=torch.long)
    batch = ChunkBatch(tokens, tokens == 0, ((context,),))
    model = tiny(kind)
    real = real_cost(model, lambda model: model.loss(batch).total)
    ours = account(model, context=context)
    assert sum(ours.training_flops.values()) * tokens.numel() == pytest.approx(
        real.forward + real.backward, rel=1e-12
    )
    # The mean over the positions that count keeps which these are: measured 18 bytes.
    kept = real.kept_bytes - sum(ours.activation_bytes.values())
    assert 0 <= kept <= 18


# Each term alone, and both beside heads that sample in other ways.
@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        (EnergyHead, (0.1, 0.0)),
        (EnergyHead, (0.0, 1.0)),
        (EnergyHead, (0.1, 1.0)),
        (FlowHead, (0.1, 1.0)),
        (MixtureHead, (0.1, 1.0)),
    ],
)
def test_training_with_terms_beside_the_heads_loss(kind, weights):
    context = 11
    tokens = torch.zeros(1, context, 3, dtype=torch.long)
    batch = ChunkBatch(tokens, tokens == 0, ((context,),))
    model = tiny(kind, cross_entropy_weight=weights[0], pull_weight=weights[1])
    real = real_cost(model, lambda model: model.loss(batch).total)
    ours = account(model, context=context)
    assert sum(ours.training_flops.values()) * tokens.numel() == pytest.approx(
        real.forward + real.backward, rel=1e-12
    )


@pytest.mark.parametrize("kind", list(HEADS), ids=lambda kind: kind.__name__)
def test_sampling_below_temperature_one(kind):
    """Candidates beyond the second cost as much as the second."""
    model = tiny(kind).eval().requires_grad_(False)
    cond, candidates = torch.zeros(1, 8), 5
    with FlopCounterMode(display=False) as counter:
        latents = model.head.sample(cond, candidates)
        head = counter.get_total_flops()
        model.autoencoder.decode_tokens(latents)
    ours = account(model, context=4).inference_flops(candidates)
    assert ours["head"] == pytest.approx(head / 3, rel=1e-12)
    assert ours["autoencoder"] == pytest.approx((counter.get_total_flops() - head) / 3, rel=1e-12)
