"""What every backbone promises."""

import copy
import io

import pytest
import torch
from backbone_instances import BACKBONES
from exported import exported_finals
from jaxtyping import TypeCheckError

from calmkit import backbones
from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone, Cache

HIDDEN = 8


@pytest.fixture(params=BACKBONES)
def model(request):
    torch.manual_seed(0)
    return BACKBONES[request.param]()


def vectors(batch, positions, seed=0, size=HIDDEN):
    return torch.randn(batch, positions, size, generator=torch.Generator().manual_seed(seed))


def test_no_exported_backbone_escapes():
    covered = {type(make()).__name__ for make in BACKBONES.values()}
    assert covered == exported_finals(backbones, Backbone)


@pytest.mark.parametrize("shape", [(2, 5), (1, 1), (0, 3), (3, 1)])
def test_shapes(model, shape):
    assert model.hidden_size == HIDDEN
    assert model(vectors(*shape)).shape == (*shape, HIDDEN)


def test_gradients_are_finite_and_reach_every_parameter(model):
    model(vectors(2, 5)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_causality_by_gradient(model):
    """State t depends on vectors 0..t, on each of them, and on no other row."""
    x = vectors(2, 5).requires_grad_()
    for t in range(5):
        weights = vectors(2, 5, seed=1)[0, t]
        (gradient,) = torch.autograd.grad(model(x)[0, t] @ weights, x)
        assert (gradient[0, : t + 1].abs().sum(dim=-1) > 0).all()
        assert (gradient[0, t + 1 :] == 0).all()
        assert (gradient[1] == 0).all()


def test_no_leak_from_the_future(model):
    """Bitwise: the past does not move when the future does."""
    x, y = vectors(2, 6), vectors(2, 6)
    y[:, 3:] += 1e3
    torch.testing.assert_close(model(y)[:, :3], model(x)[:, :3], rtol=0, atol=0)


@torch.no_grad()
def test_a_packed_document_equals_the_document_alone(model):
    lengths = [(2, 3, 1), (5, 1), (6,)]
    x = vectors(3, 6)
    packed = model(x, AttentionMask.packed(lengths))
    for row, sizes in enumerate(lengths):
        documents = x[row].split(sizes)
        alone = torch.cat([model(document[None])[0] for document in documents])
        torch.testing.assert_close(packed[row], alone)


@torch.no_grad()
@pytest.mark.parametrize("prefix", range(6))
def test_cached_equals_uncached(model, prefix):
    """A prefix of any length at once, then one position at a time: every element agrees."""
    x = vectors(2, 5)
    cache = model.new_cache(2, 5)
    assert isinstance(cache, Cache)
    parts = [x[:, :prefix], *x[:, prefix:].split(1, dim=1)]
    states = [model(part, cache=cache) for part in parts if part.shape[1] > 0]
    torch.testing.assert_close(torch.cat(states, dim=1), model(x))
    assert cache.lengths.tolist() == [5, 5]


@torch.no_grad()
def test_cached_in_blocks_equals_uncached(model):
    x = vectors(2, 7)
    cache = model.new_cache(2, 9)
    states = [model(part, cache=cache) for part in x.split((2, 4, 1), dim=1)]
    torch.testing.assert_close(torch.cat(states, dim=1), model(x))


@torch.no_grad()
@pytest.mark.parametrize("prefixes", [(4, 1, 2), (1, 4, 4), (3, 3, 3)])
def test_ragged_rows_with_a_cache_equal_each_row_alone(model, prefixes):
    """Prompts of different lengths share a batch; what fills the short ones is forgotten."""
    x = vectors(3, 7)
    cache = model.new_cache(3, 7)
    first = model(x[:, : max(prefixes)], cache=cache)
    cache = cache.select(torch.arange(3), torch.tensor(prefixes))
    steps = []
    for step in range(3):
        now = torch.stack([x[row, prefixes[row] + step] for row in range(3)])
        steps.append(model(now[:, None], cache=cache))
    for row, prefix in enumerate(prefixes):
        alone = model(x[row : row + 1, : prefix + 3])[0]
        got = torch.cat([first[row, :prefix], *(step[row] for step in steps)])
        torch.testing.assert_close(got, alone)
    assert cache.lengths.tolist() == [prefix + 3 for prefix in prefixes]


@torch.no_grad()
def test_branches_of_a_cache_are_independent(model):
    x = vectors(1, 4)
    cache = model.new_cache(1, 6)
    model(x, cache=cache)
    branches = cache.select(torch.tensor([0, 0, 0]), torch.tensor([4, 4, 2]))
    new = vectors(3, 2, seed=2)
    got = model(new, cache=branches)
    for row, kept in enumerate([4, 4, 2]):
        alone = model(torch.cat([x[0, :kept], new[row]])[None])[0, kept:]
        torch.testing.assert_close(got[row], alone)
    # The cache they come from has not changed.
    torch.testing.assert_close(
        model(new[:1], cache=cache), model(torch.cat([x, new[:1]], dim=1))[:, 4:]
    )


def test_mask_and_cache_exclude_each_other(model):
    with pytest.raises(ValueError, match="mask and cache exclude each other"):
        model(vectors(1, 1), AttentionMask.causal(), model.new_cache(1, 1))


@torch.no_grad()
def test_a_full_cache_is_refused(model):
    cache = model.new_cache(1, 2)
    model(vectors(1, 2), cache=cache)
    with pytest.raises(ValueError, match="capacity"):
        model(vectors(1, 1), cache=cache)


def test_wrong_shapes_are_refused(model):
    with pytest.raises(TypeCheckError, match="parameter 'vectors'"):
        model(vectors(2, 3)[0])
    with pytest.raises(ValueError, match=r"hidden_size = 8 features; got shape \(2, 3, 7\)"):
        model(vectors(2, 3, size=7))


def test_packing_for_other_rows_is_refused(model):
    with pytest.raises(ValueError, match="2 rows"):
        model(vectors(2, 3), AttentionMask.packed([(3,)]))


def test_save_and_load(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(vectors(2, 3)), model(vectors(2, 3)), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_dtypes(model, dtype):
    want = model(vectors(2, 5))
    low = model.to(dtype)
    cache = low.new_cache(2, 5)
    out = low(vectors(2, 5).to(dtype))
    assert out.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.15}[dtype]
    torch.testing.assert_close(out.double(), want, rtol=tolerance, atol=tolerance)
    assert low(vectors(2, 5).to(dtype), cache=cache).dtype == dtype


# PyTorch says that its norm is not fused where autocast mixes dtypes: slower, not wrong.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@torch.no_grad()
def test_autocast(model):
    model = model.float()
    x = vectors(2, 5).float()
    want = model(x)
    cache = model.new_cache(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        plain, cached = model(x), model(x, cache=cache)
    # bfloat16 keeps 8 bits: errors of a few per cent after two layers.
    torch.testing.assert_close(plain.float(), want, rtol=0.15, atol=0.15)
    torch.testing.assert_close(cached.float(), want, rtol=0.15, atol=0.15)


def test_compiles_to_one_graph(model):
    x = vectors(2, 6)
    mask = AttentionMask.packed([(2, 4), (6,)])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, mask), model(x, mask))
