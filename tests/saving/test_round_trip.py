"""Save and load give the same part, bit for bit, whatever it is built of."""

import inspect

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from part_strategies import (
    CHUNK,
    HIDDEN,
    KINDS,
    LATENT,
    PACKAGES,
    VOCAB,
    finals,
    models,
    parts,
)
from seeding import seeded
from torch import nn

from calmkit.autoencoders import (
    ChunkAutoencoder,
    MLPAutoencoder,
    SparseAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.backbones import Backbone, TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead, Head
from calmkit.models import (
    CALM,
    ChunkEmbedding,
    InputEncoder,
    LanguageModel,
    LatentEmbedding,
    TokenAndLatentEmbedding,
    TokenLM,
)
from calmkit.recording import Recorded
from calmkit.saving import CannotBeSavedError, load, save
from calmkit.saving.describing import describe
from calmkit.saving.rebuilding import rebuild

ALL = [part for kind in KINDS for part in finals(kind)]
# They refer to an autoencoder of the model, without which they cannot be saved.
REFERRING = [LatentEmbedding, TokenAndLatentEmbedding]
ALONE = [part for part in ALL if part not in REFERRING]
MODULES = [part for part in ALONE if issubclass(part, nn.Module)]


def randomize(module):
    """Weights and buffers that no constructor makes, no two of them alike."""
    generator = seeded()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.05 + 0.2 * torch.rand(tensor.shape, generator=generator))


def outputs(module):
    """What a module computes, from the same random numbers."""
    if isinstance(module, Head):
        cond = torch.randn(2, HIDDEN, generator=seeded(1))
        target = DiagonalGaussian.point_mass(torch.randn(2, LATENT, generator=seeded(2)))
        return module.sample(cond, 2, seeded()), module.loss(cond, target, seeded())
    if isinstance(module, Backbone):
        return (module(torch.randn(1, 4, HIDDEN, generator=seeded(1))),)
    if isinstance(module, LanguageModel):
        tokens = torch.randint(VOCAB, (1, 4, module.chunk_size), generator=seeded(1))
        real = torch.ones_like(tokens, dtype=torch.bool)
        batch = ChunkBatch(tokens, real, ((4,),))
        return module.hidden_states(batch), module.loss(batch, seeded()).total
    tokens = torch.randint(VOCAB, (4, CHUNK), generator=seeded(1))
    if isinstance(module, InputEncoder):
        return (module(tokens, torch.ones_like(tokens, dtype=torch.bool)),)
    posterior = module.encode(tokens)
    return posterior.mean, posterior.std, module.decode(posterior.mean)


def test_every_exported_part_is_here():
    """What keeps its arguments is of one of the kinds, a whole model, or read by nothing else."""
    exported = {
        value
        for package in PACKAGES
        for value in vars(package).values()
        if inspect.isclass(value) and issubclass(value, Recorded) and not inspect.isabstract(value)
    }
    assert set(finals(LanguageModel)) == {CALM, TokenLM}
    assert exported - set(ALL) == {CALM, TokenLM, SparseAutoencoder}


# Without shrinking: an example writes files, and shrinking one would take minutes.
QUICK = settings(max_examples=10, phases=[Phase.generate])


@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.__name__)
@given(data=st.data())
@QUICK
def test_a_description_builds_the_same_part(kind, data):
    part = data.draw(parts(kind))
    again = rebuild(describe(part), trust=("part_strategies",))
    assert type(again) is type(part)
    assert describe(again) == describe(part)
    if not issubclass(kind, Recorded) or "__eq__" in kind.__dict__:
        assert again == part


def check_saved_and_loaded(part, kind, folder):
    randomize(part)
    save(part, folder)
    again = load(folder, kind, trust=("part_strategies",))
    assert not again.training
    assert again.state_dict().keys() == part.state_dict().keys()
    for name, tensor in part.state_dict().items():
        assert tensor.dtype == again.state_dict()[name].dtype
        assert torch.equal(tensor, again.state_dict()[name]), name
    for first, second in zip(outputs(part), outputs(again), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    return again


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_saved_and_loaded_bitwise(tmp_path, kind, data):
    check_saved_and_loaded(data.draw(parts(kind)).eval(), kind, tmp_path)


@pytest.mark.parametrize("kind", finals(LanguageModel), ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_model_of_any_parts_is_saved_and_loaded_bitwise(tmp_path, kind, data):
    model = data.draw(models(kind)).eval()
    again = check_saved_and_loaded(model, kind, tmp_path)
    assert len(list(again.parameters())) == len(list(model.parameters()))
    if kind is CALM and model.input_encoder.autoencoder is not None:
        assert again.input_encoder.autoencoder is again.autoencoder


@pytest.mark.parametrize("kind", REFERRING, ids=lambda kind: kind.__name__)
def test_what_is_only_referred_to_is_not_lost_silently(tmp_path, kind):
    part = kind(MLPAutoencoder(CHUNK, VOCAB, LATENT, width=4), HIDDEN)
    with pytest.raises(CannotBeSavedError, match=r"\.autoencoder must be inside of the"):
        save(part, tmp_path)
    assert not any(tmp_path.iterdir())


def calm(head=None):
    return CALM(
        autoencoder=StandardizedAutoencoder(MLPAutoencoder(CHUNK, VOCAB, LATENT, width=8)),
        input_encoder=ChunkEmbedding(VOCAB, CHUNK, HIDDEN),
        backbone=TransformerBackbone(HIDDEN, depth=1, heads=2),
        head=EnergyHead(HIDDEN, LATENT, width=8) if head is None else head,
    ).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_language_model_writes_the_same_text(tmp_path, dtype):
    model = calm().to(dtype)
    save(model, tmp_path)
    again = load(tmp_path)
    assert {weight.dtype for weight in again.parameters()} == {dtype}
    first, second = (
        one.generate([[1, 2]], max_new_tokens=9, generator=seeded())[0].tokens
        for one in (model, again)
    )
    assert first == second
    assert not any(parameter.requires_grad for parameter in again.autoencoder.parameters())
    assert all(parameter.requires_grad for parameter in again.head.parameters())


def test_loading_and_saving_draw_nothing_from_the_callers_generator(tmp_path):
    model = calm()
    before = torch.get_rng_state()
    save(model, tmp_path)
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_kind_is_checked(tmp_path):
    save(EnergyHead(HIDDEN, LATENT, width=8), tmp_path)
    assert isinstance(load(tmp_path, Head), EnergyHead)
    for kind in (ChunkAutoencoder, CALM):
        with pytest.raises(
            ValueError, match=f"must hold a {kind.__name__}; it holds a EnergyHead"
        ):
            load(tmp_path, kind)
