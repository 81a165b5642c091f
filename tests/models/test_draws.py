"""A model's next chunk as a black box: lazily decoded, for some rows, with the same law."""

import torch
from calm_models import energy_head, tiny
from seeding import seeded

from calmkit.models.draws import ChunkDraws
from calmkit.sampling import BatchTemperature, batch_temperature
from calmkit.sampling.base import SelectableDraw
from calmkit.sampling.undecoded import LazyDraw


def box(seed=0, batch=(2, 3)):
    model = tiny(build_head=energy_head)
    states = torch.randn(*batch, 8, generator=seeded(9))
    return model, ChunkDraws(model.head, model.autoencoder, states, seeded(seed))


def test_it_is_what_samplers_look_for():
    _, draws = box()
    assert isinstance(draws, LazyDraw) and isinstance(draws, SelectableDraw)


def test_undecoded_candidates_have_the_tokens_of_decoded_ones():
    _, draws = box()
    tokens = draws(5)
    assert tokens.shape == (5, 2, 3, 3)
    _, again = box()
    lazy = again.undecoded(5)
    assert lazy.shape == tokens.shape
    index = torch.tensor([7, 0, 29, 7])
    for place in range(3):
        got = lazy.tokens_at(range(place, 3), index)
        assert torch.equal(got, tokens.flatten(0, 2)[index, place:])


def test_joined_candidates_come_one_after_the_other():
    _, draws = box()
    tokens = torch.cat(
        [draws(2).flatten(0, 2), draws.select(torch.tensor([5, 0]))(3).flatten(0, 1)]
    )
    _, again = box()
    first = again.undecoded(2)
    joined = first.joined(again.select(torch.tensor([5, 0])).undecoded(3))
    for place in range(3):
        got = joined.tokens_at(range(place, place + 1), torch.arange(18))
        assert torch.equal(got, tokens[:, place : place + 1])
    assert len(tokens.unique(dim=0)) > 3


def test_latents_are_started_on_in_parts(monkeypatch):
    _, draws = box()
    want = draws.undecoded(5)._started
    monkeypatch.setattr("calmkit.models.draws._STARTED_AT_ONCE", 4)
    _, again = box()
    torch.testing.assert_close(again.undecoded(5)._started, want)


def test_selected_rows_draw_from_their_own_states():
    model, draws = box()
    some = draws.select(torch.tensor([4, 1]))
    states = draws._states.flatten(0, 1)[[4, 1]]
    want = ChunkDraws(model.head, model.autoencoder, states, seeded(3))
    some._generator = seeded(3)
    assert torch.equal(some(6), want(6))


def test_pruned_decoding_of_a_model_chooses_as_full_decoding(monkeypatch):
    """And asks the decoder for fewer tokens."""
    for seed in range(5):
        _, draws = box(seed)
        candidates = draws(20)
        want = batch_temperature(candidates, 0.5, generator=seeded(seed))
        model, again = box(seed)
        asked = []
        real = type(model.autoencoder).tokens_at

        def counting(autoencoder, started, places, asked=asked, real=real):
            asked.append(len(started) * len(places))
            return real(autoencoder, started, places)

        monkeypatch.setattr(type(model.autoencoder), "tokens_at", counting)
        got = BatchTemperature(0.5, 20)(again, seeded(seed))
        monkeypatch.undo()
        assert torch.equal(got.tokens, want)
        assert sum(asked) <= candidates.numel()
