"""The suite of autoencoders over all exported ones, and what our own promise besides."""

import pytest
import torch
from autoencoder_instances import AUTOENCODERS
from exported import exported_finals
from jaxtyping import TypeCheckError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calmkit import autoencoders
from calmkit.autoencoders import ChunkAutoencoder, SphericalAutoencoder, TokenwiseAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.testing import parametrize_contracts

CHUNK, VOCAB, LATENT = 3, 11, 6


@parametrize_contracts(
    "autoencoder",
    {name: lambda *sizes, make=make: make() for name, make in AUTOENCODERS.items()},
    profile="quick",
)
def test_contract(check):
    check()


@pytest.fixture(params=AUTOENCODERS)
def model(request):
    torch.manual_seed(0)
    return AUTOENCODERS[request.param]()


def chunks(*batch, seed=0):
    return torch.randint(VOCAB, (*batch, CHUNK), generator=torch.Generator().manual_seed(seed))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def rows(lengths, *, seed=0, real=None):
    """Packed documents of the given lengths; all of it is text, unless told otherwise."""
    tokens = chunks(len(lengths), sum(lengths[0]), seed=seed)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool) if real is None else real,
                      lengths)  # fmt: skip


def same(first, second):
    torch.testing.assert_close((first.mean, first.std), (second.mean, second.std))


def test_no_exported_autoencoder_escapes():
    covered = {type(make()).__name__ for make in AUTOENCODERS.values()}
    assert covered == exported_finals(autoencoders, ChunkAutoencoder)


def has_its_noise(model, posterior):
    """Whether every dimension has a width, or, on a sphere, none."""
    is_point = isinstance(model, SphericalAutoencoder)
    return bool((posterior.std == 0 if is_point else posterior.std > 0).all())


def test_posterior_is_a_proper_gaussian(model):
    posterior = model.encode(chunks(50))
    assert has_its_noise(model, posterior)
    assert torch.isfinite(posterior.mean).all()


@pytest.mark.parametrize("limit", [1, 40])
def test_decode_tokens_is_the_argmax_of_all_logits(model, limit, monkeypatch):
    """In blocks of one latent, and of one and a bit; all at once, it is a contract."""
    monkeypatch.setattr(ChunkAutoencoder, "_logits_at_once", limit)
    latents = torch.randn(7, 2, LATENT, generator=generator(0))
    want = model.decode(latents).argmax(dim=-1)
    assert len(want.unique()) > 2
    torch.testing.assert_close(model.decode_tokens(latents), want, rtol=0, atol=0)


def test_blocks_are_larger_where_each_has_kernels_to_start(model, monkeypatch):
    monkeypatch.setattr(ChunkAutoencoder, "_logits_at_once", 40)
    rows = torch.zeros(3, LATENT)
    assert model._rows_at_once(rows, 20) == 2
    assert model._rows_at_once(rows.to("meta"), 20) == 16
    assert model._rows_at_once(rows, 50) == 1


class Largest(TorchDispatchMode):
    """The largest number of elements that any operation gives."""

    def __enter__(self):
        self.elements = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            # Views of weights are not new.
            if isinstance(x, torch.Tensor) and not x._is_view():
                self.elements = max(self.elements, x.numel())
        return result


def test_decoding_never_holds_all_logits(model, monkeypatch):
    count = 500
    monkeypatch.setattr(ChunkAutoencoder, "_logits_at_once", 2 * CHUNK * VOCAB)
    latents = torch.zeros(count, LATENT)
    started = model.start_decoding(latents)
    with Largest() as one_place:
        model.tokens_at(started, range(1, 2))
    with Largest() as all_places:
        model.decode_tokens(latents)
    # The result itself is the largest: that of one place, and of all.
    assert one_place.elements <= max(count, started.numel())
    assert all_places.elements <= max(count * CHUNK, latents.numel())


@pytest.mark.parametrize("limit", [1, 40])
def test_places_can_be_decoded_apart(model, limit, monkeypatch):
    monkeypatch.setattr(ChunkAutoencoder, "_logits_at_once", limit)
    latents = torch.randn(7, 2, LATENT, generator=generator(0))
    started, want = model.start_decoding(latents), model.decode(latents)
    for place in range(CHUNK):
        torch.testing.assert_close(model.logits_at(started, place), want[..., place, :])
        for stop in range(place + 1, CHUNK + 1):
            got = model.tokens_at(started, range(place, stop))
            likeliest = want[..., place:stop, :].argmax(dim=-1)
            torch.testing.assert_close(got, likeliest, rtol=0, atol=0)
    assert model.tokens_at(started[:0], range(1)).shape == (0, 2, 1)


def test_rows_have_a_posterior_and_a_loss_for_each_chunk(model):
    for shape in ((2, 4), (1, 1)):
        batch = rows(((shape[1],),) * shape[0])
        posterior, loss = model.encode_rows(batch), model.loss_rows(batch, generator(0))
        assert posterior.mean.shape == posterior.std.shape == (*shape, LATENT)
        assert loss.total.shape == loss.reconstruction.shape == loss.kl.shape == shape
        assert has_its_noise(model, posterior)


def test_a_document_of_one_chunk_has_no_neighbours(model):
    model.eval()
    batch = rows(((1, 1, 1, 1), (1, 1, 1, 1)))
    same(model.encode_rows(batch), model.encode(batch.tokens))
    torch.testing.assert_close(model.loss_rows(batch).total, model.loss(batch.tokens).total)


def test_ids_of_other_chunks_that_are_not_real_do_not_matter(model):
    """Left padding of a first chunk, and empty chunks after a text."""
    real = torch.ones(1, 5, CHUNK, dtype=torch.bool)
    real[0, 0, :2] = False
    real[0, 3:] = False
    batch = rows(((5,),), real=real)
    other = ChunkBatch(torch.where(real, batch.tokens, chunks(1, 5, seed=1)), real, ((5,),))
    assert not torch.equal(batch.tokens, other.tokens)
    full = real.all(dim=-1)
    for name in ("mean", "std"):
        first, second = (getattr(model.encode_rows(b), name)[full] for b in (batch, other))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def is_tokenwise(model):
    return any(isinstance(part, TokenwiseAutoencoder) for part in model.modules())


def test_known_places_of_a_partial_chunk_matter(model):
    tokens = chunks(1)
    for place in range(CHUNK):
        real = torch.arange(CHUNK)[None] == place
        other = (tokens + 1) % VOCAB
        first, second = (model.encode_partial(t, real).mean for t in (tokens, other))
        same = torch.isclose(first, second).unflatten(-1, (CHUNK, LATENT // CHUNK))
        # Where tokens have their own parts, the parts of others stay.
        assert not (same[:, place] if is_tokenwise(model) else same).any()


def test_training_gradients_of_rows_reach_every_parameter(model):
    batch = rows(((5, 3),) * 10)
    model.train().loss_rows(batch, generator(0)).total.sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_training_loss_is_a_function_of_the_generator(model):
    tokens = chunks(6)
    for loss in (model.loss, lambda tokens, g: model.loss_rows(rows(((2, 4),)), g)):
        first, again, other = (loss(tokens, generator(s)).total for s in (1, 1, 2))
        torch.testing.assert_close(first, again, rtol=0, atol=0)
        assert not torch.isclose(first, other).all()


def test_evaluation_decodes_the_mean_without_noise(model):
    model.eval()
    batch = rows(((2, 4),))
    (tokens,) = batch.tokens
    for posterior, loss in (
        (model.encode(tokens), lambda g: model.loss(tokens, g)),
        (model.encode_rows(batch), lambda g: model.loss_rows(batch, g)),
    ):
        first, other = loss(generator(1)), loss(generator(2))
        torch.testing.assert_close(first.total, other.total, rtol=0, atol=0)
        log_probs = model.decode(posterior.mean).log_softmax(dim=-1).view(6, CHUNK, VOCAB)
        want = torch.zeros(6)
        for row in range(6):
            for k in range(CHUNK):
                want[row] -= log_probs[row, k, tokens[row, k]].detach()
        torch.testing.assert_close(first.reconstruction.detach().view(6), want)


# PyTorch says that its norm is not fused where autocast mixes dtypes: slower, not wrong.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
def test_autocast(model):
    tokens = chunks(4)
    model = model.float().eval()
    want = model.loss(tokens).total
    with torch.autocast("cpu", torch.bfloat16):
        got = model.loss(tokens).total
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.1)


def test_wrong_input_is_refused(model):
    with pytest.raises(TypeCheckError, match="parameter 'tokens'"):
        model.encode(torch.zeros(2, CHUNK))
    with pytest.raises(TypeCheckError, match="parameter 'latents'"):
        model.decode(torch.zeros(2, LATENT, dtype=torch.long))
    wrong = torch.zeros(2, CHUNK + 1, dtype=torch.long)
    real = torch.ones(1, 2, CHUNK + 1, dtype=torch.bool)
    in_rows = ChunkBatch(wrong[None], real, ((2,),))
    with pytest.raises(ValueError, match=r"chunk_size = 3; got shape \(2, 4\)"):
        model.encode_partial(wrong, real[0])
    for call in (model.encode_rows, model.loss_rows):
        with pytest.raises(ValueError, match=r"chunk_size = 3; got shape \(1, 2, 4\)"):
            call(in_rows)
    for call in (model.encode, model.loss):
        with pytest.raises(ValueError, match=r"chunk_size = 3; got shape \(2, 4\)"):
            call(wrong)
    for call in (model.decode, model.decode_tokens):
        with pytest.raises(ValueError, match=r"latent_size = 6 dimensions; got shape \(2, 4\)"):
            call(torch.zeros(2, 4))
