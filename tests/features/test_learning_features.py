"""The sparse autoencoder: its formulas as loops, and a dictionary that it must find again."""

import math

import pytest
import torch
from rounding import normal

import calmkit
from calmkit.autoencoders import SparseAutoencoder
from calmkit.features import FeatureSettings, learn_features
from calmkit.features.learning_features import _loss
from calmkit.saving import save

SIZE, FEATURES, ACTIVE = 4, 7, 2


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SparseAutoencoder(SIZE, FEATURES, ACTIVE)
        with torch.no_grad():
            model.encoder.weight.normal_()
            model.encoder.bias.normal_()
        model.standardize(2.0 + 3.0 * normal(50, SIZE, seed=1))
        return model.requires_grad_(False)


def test_is_its_formulas():
    model, x = small(), 2.0 + 3.0 * normal(6, SIZE, seed=2)
    found, again = model.activations(x), model(x)
    for t in range(6):
        u = [(float(x[t, i]) - float(model.mean[i])) / float(model.scale) for i in range(SIZE)]
        dense = []
        for f in range(FEATURES):
            weight = model.encoder.weight[f]
            total = sum(float(weight[i]) * u[i] for i in range(SIZE))
            dense.append(max(0.0, total + float(model.encoder.bias[f])))
        largest = sorted(range(FEATURES), key=lambda f: -dense[f])[:ACTIVE]
        a = [dense[f] if f in largest else 0.0 for f in range(FEATURES)]
        assert found[t].tolist() == pytest.approx(a)
        for i in range(SIZE):
            total = sum(a[f] * float(model.directions[f, i]) for f in range(FEATURES))
            want = float(model.mean[i]) + float(model.scale) * total
            assert float(again[t, i]) == pytest.approx(want)


def test_a_direction_is_what_an_activation_adds():
    model = small()
    a = torch.zeros(FEATURES)
    a[3] = 1.0
    change = model.decode(a) - model.decode(torch.zeros(FEATURES))
    torch.testing.assert_close(model.direction(3), change)
    model.directions.data.mul_(5.0)
    model.normalize()
    assert model.directions.norm(dim=-1).tolist() == pytest.approx([1.0] * FEATURES)


def test_mean_and_scale_are_those_of_the_vectors():
    x = normal(9, 3, seed=3)
    model = SparseAutoencoder(3, 4, 1)
    model.standardize(x)
    u = model.read(x)
    assert u.mean(dim=0).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert float(u.square().mean()) == pytest.approx(1.0)
    model.standardize(torch.ones(9, 3))
    assert model.read(torch.ones(9, 3)).tolist() == torch.zeros(9, 3).tolist()


def test_the_loss_revives_dead_features():
    """Without dead features it is the error; with them, 1/32 of what they leave of it is added."""
    model, u = small(), normal(5, SIZE, seed=4)
    none = torch.zeros(FEATURES, dtype=torch.bool)
    plain, is_active = _loss(model, u, none)
    a = model.activations(model.mean + model.scale * u)
    error = u - a @ model.directions
    assert float(plain) == pytest.approx(float(error.square().sum(dim=-1).mean()))
    assert torch.equal(is_active, (a > 0).any(dim=0))
    dead = none.clone()
    dead[5] = True
    dense = (u @ model.encoder.weight[5] + model.encoder.bias[5]).clamp_min(0)
    left = error - dense[:, None] * model.directions[5]
    more, _ = _loss(model, u, dead)
    assert float(more - plain) == pytest.approx(float(left.square().sum(dim=-1).mean()) / 32)


def sparse_data(points=4000, size=12, features=20, active=2, seed=5):
    """Sums of two of 20 directions of 12 dimensions, with lengths in [0.5, 1.5]."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(normal(features, size, seed=seed), dim=-1)
    chosen = torch.rand(points, features, generator=generator).topk(active).indices
    length = 0.5 + torch.rand(points, active, generator=generator)
    return (length[..., None] * truth[chosen]).sum(dim=1), truth


def learned(x, **changes):
    settings = {
        "features": 40, "active": 2, "steps": 800, "batch_size": 256, "learning_rate": 3e-3
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return learn_features(x, FeatureSettings(**{**settings, **changes}), generator)


def found_share(model, truth):
    """Share of the true directions that some feature has, to a cosine of 0.9."""
    return float(((model.directions @ truth.T).amax(dim=0) > 0.9).double().mean())


def test_a_known_dictionary_is_found():
    x, truth = sparse_data()
    model = learned(x)
    fresh, _ = sparse_data(seed=5, points=6000)
    explained = 1 - (fresh - model(fresh)).square().sum() / (fresh - x.mean(0)).square().sum()
    assert found_share(model, truth) >= 0.9
    assert float(explained) > 0.9
    # Gaussian vectors of the same covariance have no such features, and dimensions are none.
    assert found_share(learned(normal(4000, 12) @ torch.linalg.cholesky(x.T.cov()).T), truth) < 0.5


def test_the_generator_decides():
    x, _ = sparse_data(points=100)
    one, same = learned(x, steps=3), learned(x, steps=3)
    assert torch.equal(one.directions, same.directions)
    assert not torch.equal(one.directions, learned(x, steps=4).directions)
    assert not one.training and not any(p.requires_grad for p in one.parameters())


def test_is_saved_and_loaded(tmp_path):
    model = small()
    save(model, tmp_path / "sparse")
    again = calmkit.load(tmp_path / "sparse", kind=SparseAutoencoder)
    x = normal(3, SIZE)
    assert torch.equal(again(x), model(x)) and again.active == ACTIVE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SparseAutoencoder(4, 3, 5), "active must be at most the 3 features; got 5"),
        (lambda: SparseAutoencoder(0, 3, 1), "size must be at least 1; got 0"),
        (lambda: FeatureSettings(steps=0), "steps must be at least 1; got 0"),
        (lambda: FeatureSettings(learning_rate=math.nan), "learning_rate must be positive"),
        (lambda: learned(torch.ones(1, 4)), "vectors must hold at least 2 points; got 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
