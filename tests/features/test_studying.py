"""A whole study on small models: the right chunks, the right numbers, text and JSON."""

import json

import pytest
import torch
from evaluation_problems import model_of, rows_of

from calmkit.features import FeatureSettings, chunk_vectors, study_features

CHUNK, COUNT = 2, 12
SETTINGS = FeatureSettings(features=16, active=2, steps=60, batch_size=64, learning_rate=1e-2)


class Letters:
    def decode(self, tokens):
        return "".join("abcd"[token] for token in tokens)


def rows(count=COUNT, size=40):
    """Rows of 20 chunks; the last one ends inside a chunk."""
    return rows_of(CHUNK, [size] * (count - 1) + [13], list(range(count)))


def study(kind="latents", **changes):
    options = {"kind": kind, "new_chunks": 3, "strengths": (0.0, 2.0), "min_context": 4}
    settings = changes.pop("settings", SETTINGS)
    model = model_of(CHUNK).train()
    found = study_features(model, rows(40), rows(), Letters(), settings, **{**options, **changes})
    assert model.training
    return (*found, model)


class TestVectors:
    def test_latents_stand_for_their_chunks(self):
        model = model_of(CHUNK)
        found = chunk_vectors(model, rows(40), "latents")
        # 39 rows of 20 full chunks and one of 6, more than are encoded together.
        assert len(found.vectors) == 39 * 20 + 6
        batch = rows(40).batch
        posterior = model.autoencoder.encode_rows(batch).mean
        torch.testing.assert_close(found.vectors, posterior[found.row, found.position])
        assert torch.equal(found.tokens, batch.tokens[found.row, found.position])
        assert bool(batch.real[found.row, found.position].all())

    def test_states_stand_for_the_chunk_after_them(self):
        model = model_of(CHUNK)
        found = chunk_vectors(model, rows(), "states")
        assert len(found.vectors) == 11 * 19 + 5
        states = model.eval().hidden_states(rows().batch)
        torch.testing.assert_close(found.vectors, states[found.row, found.position - 1])
        assert torch.equal(found.tokens, rows().batch.tokens[found.row, found.position])

    def test_no_full_chunk_is_refused(self):
        empty = rows_of(CHUNK, [1, 1], [0, 1])
        with pytest.raises(ValueError, match="at least one full chunk; got none"):
            chunk_vectors(model_of(CHUNK), empty, "latents")


def in_context(found, point):
    """Four chunks before it, itself in brackets, two chunks after it."""
    row, at = int(found.row[point]), CHUNK * int(found.position[point])
    text = Letters().decode(rows().batch.tokens[row].flatten().tolist())
    text = text[:13] if row == COUNT - 1 else text
    return f"{text[max(0, at - 8) : at]}[{text[at : at + 2]}]{text[at + 2 : at + 6]}"


@pytest.mark.parametrize("kind", ["latents", "states"])
def test_numbers_and_examples(kind):
    found, sparse, model = study(kind)
    held_out = chunk_vectors(model, rows(), kind)
    x, learned = held_out.vectors, chunk_vectors(model, rows(40), kind).vectors
    activations = sparse.activations(x)
    mean = learned.mean(dim=0)
    left = sum(float((x[t] - sparse(x)[t]).square().sum()) for t in range(len(x)))
    total = sum(float((x[t] - mean).square().sum()) for t in range(len(x)))
    assert found.fit.explained == pytest.approx(1 - left / total)
    assert found.fit.dead == sum(not (activations[:, f] > 0).any() for f in range(16)) / 16
    _, _, axes = torch.linalg.svd(learned - mean, full_matrices=False)
    by_axes = mean + (x - mean) @ axes[:2].T @ axes[:2]
    want = 1 - float((x - by_axes).square().sum()) / total
    assert found.fit.explained_by_axes == pytest.approx(want)
    if kind == "latents":
        right = model.eval().autoencoder.decode_tokens(sparse(x)) == held_out.tokens
        assert found.fit.restored == float(right.double().mean())
    else:
        assert found.fit.restored is None
    assert len(found.features) >= 2
    for one in found.features:
        activation = activations[:, one.best.feature]
        assert one.active == float((activation > 0).double().mean())
        assert one.mean_activation == pytest.approx(float(activation[activation > 0].mean()))
        # Equal chunks, or rows that begin with one, have the same activation.
        strongest = (activation > activation.max() - 1e-9).nonzero()[:, 0].tolist()
        assert one.examples[0] in [in_context(held_out, point) for point in strongest]
        assert 1 <= len(one.examples) <= 5
        assert [shown.strength for shown in one.steering] == [0.0, 2.0]
        # Without a strength, each feature's text is that of the model itself.
        assert one.steering[0].text == found.features[0].steering[0].text


def test_text_and_json():
    found, _, _ = study()
    text = found.to_text()
    assert text.startswith("latents: explained ") and found.protocol in text
    assert "tokens decoded right" in text and "  steered by 2: token in " in text
    assert "16 features, 2 active, learned in 60 steps on 786 latents of 40 rows" in text
    content = json.loads(found.to_json())
    assert content["fit"]["explained"] == found.fit.explained
    assert content["features"][0]["best"]["token"] == found.features[0].best.token
    assert content["features"][0]["steering"][1]["strength"] == 2.0


def test_without_steering_and_with_the_same_seed():
    one, same, other = (study(new_chunks=0, seed=seed)[0] for seed in (1, 1, 2))
    assert one.to_json() == same.to_json() != other.to_json()
    assert all(not x.steering for x in one.features)
    assert "steered" not in one.to_text()


def test_too_few_prompts_are_refused_by_name():
    short = rows_of(CHUNK, [40, 5, 5], [0, 1, 2])
    with pytest.raises(ValueError, match=r"at least 2 rows must hold 4 full chunks.* 1 do"):
        study_features(
            model_of(CHUNK), rows(), short, Letters(), SETTINGS, min_context=4, new_chunks=2
        )


def test_no_clear_feature_is_said():
    found, _, _ = study(count=0, new_chunks=0)
    assert "No feature stands for one token." in found.to_text()
