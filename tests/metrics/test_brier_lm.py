"""BrierLM of sums: its parts, its undefined cases, and the errors of all by a bootstrap."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.metrics import (
    NgramSums,
    bootstrap_ratio,
    combine_brier,
    counted_ngrams,
    summarize_brier,
)


def sums_of(brier, *, collision=0.0, groups=3, chunk_size=1):
    """Each n-gram of every group has the Brier score asked for, of a known collision rate."""
    scores = torch.tensor(brier, dtype=torch.float64)[:, None].expand(-1, chunk_size)
    collisions = torch.full((groups, *scores.shape), collision, dtype=torch.float64)
    hits = (scores.expand(groups, -1, -1) + collisions) / 2
    return NgramSums(10 * hits, 10 * collisions, torch.full_like(hits, 10.0))


def test_brier_lm_is_the_geometric_mean():
    result = summarize_brier(sums_of([0.4, 0.2, 0.1, 0.05], collision=0.3))
    assert result.brier_lm == pytest.approx(100 * (0.4 * 0.2 * 0.1 * 0.05) ** 0.25)
    assert [b.value for b in result.brier] == pytest.approx([40, 20, 10, 5])
    assert result.not_positive == ()
    first = result.ngrams[0]
    assert (first.hit.value, first.collision.value) == pytest.approx((35, 30))
    for score in result.ngrams:
        assert score.brier.value == pytest.approx(2 * score.hit.value - score.collision.value)
    assert summarize_brier(sums_of([1.0] * 4)).brier_lm == pytest.approx(100)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=8))
def test_of_any_highest_order(scores):
    want = 100 * math.prod(scores) ** (1 / len(scores))
    assert float(combine_brier(torch.tensor(scores, dtype=torch.float64))) == pytest.approx(want)


@pytest.mark.parametrize("orders", [(4,), (1, 3), (2, 3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("bad", [-0.5, 0.0])
def test_no_number_of_negative_scores_passes(orders, bad):
    """Not even an even one, whose product is positive."""
    scores = [bad if n in orders else 0.5 for n in (1, 2, 3, 4)]
    result = summarize_brier(sums_of(scores))
    assert result.brier_lm == 0.0
    assert result.not_positive == orders
    assert [b.value for b in result.brier] == pytest.approx([100 * score for score in scores])
    which = ", ".join(f"Brier-{n}" for n in orders)
    assert str(result).startswith(f"BrierLM  0, since not positive: {which}\n")


def test_identical_draws_raise_an_alarm():
    """Two hit - collision with collision 1: 2 x 0.3 - 1, and BrierLM is 0 without a word."""
    found = summarize_brier(sums_of([-0.4] * 4, collision=1.0))
    assert found.brier_lm == 0 and found.is_deterministic
    assert "ALARM: all draws are equal" in str(found)
    for brier, collision in (([-0.4] * 4, 0.999), ([1.0] * 4, 1.0)):  # draws differ; all right
        other = summarize_brier(sums_of(brier, collision=collision))
        assert not other.is_deterministic and "ALARM" not in str(other)


def score_draws(draws, target):
    counted = counted_ngrams(torch.ones_like(target, dtype=torch.bool), 4, target.shape[1])
    group = torch.arange(len(target)) % 3
    return summarize_brier(NgramSums.of_draws(draws, target, counted, group, 3))


def test_a_collapsed_model_scores_nothing():
    """All draws are the same wrong chunk: Brier-n is -1 for each n, the product is +1."""
    target = torch.arange(24).view(6, 4)
    result = score_draws(torch.full((4, 6, 4), 99), target)
    assert [b.value for b in result.brier] == [-100.0] * 4
    assert math.prod(b.value / 100 for b in result.brier) == 1
    assert (result.brier_lm, result.not_positive) == (0.0, (1, 2, 3, 4))


def test_an_anti_calibrated_model_scores_nothing():
    """Never draws the token that comes: no hits, and so no Brier-n is positive."""
    corners = torch.tensor([[int(bit) for bit in f"{n:04b}"] for n in range(16)])
    target = torch.full((6, 4), 2)
    result = score_draws(corners[:, None].expand(16, 6, 4).contiguous(), target)
    for n, score in enumerate(result.ngrams, start=1):
        assert score.hit.value == 0
        # 16 draws, every n-gram 16 / 2^n times: equal pairs without a draw's pair with itself.
        each = 16 / 2**n
        assert score.collision.value == pytest.approx(100 * (each - 1) / 15)
    # Every chunk once: no pair is equal, and Brier-4 is zero, which is not positive either.
    assert (result.brier_lm, result.not_positive) == (0.0, (1, 2, 3, 4))


def test_what_is_not_a_number_is_no_zero():
    assert combine_brier(torch.tensor([0.5, math.nan])).isnan()


def random_sums(groups=12, orders=3, places=2):
    generator = torch.Generator().manual_seed(0)
    hits, collisions = (
        torch.rand(groups, orders, places, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    counts = torch.randint(1, 9, (groups, orders, places), generator=generator).double()
    return NgramSums(hits * counts, 0.7 * collisions * counts, counts)


def test_errors_are_those_of_the_bootstrap():
    sums = random_sums()
    result = summarize_brier(sums, resamples=300, seed=5)
    for n in range(3):
        for at, score in ((slice(None), result.ngrams[n]), *(
            (slice(i, i + 1), result.places[n][i]) for i in range(2)
        )):  # fmt: skip
            hit, collision, count = (
                x[:, n, at].sum(-1, keepdim=True)
                for x in (sums.hits, sums.collisions, sums.counts)
            )
            for values, got in (
                (2 * hit - collision, score.brier), (hit, score.hit), (collision, score.collision)
            ):  # fmt: skip
                (want,) = bootstrap_ratio(values, count, resamples=300, seed=5)
                assert got.value == pytest.approx(100 * want.value)
                assert got.standard_error == pytest.approx(100 * want.standard_error)
                assert got.interval == pytest.approx([100 * end for end in want.interval])


def test_brier_lm_is_recomputed_in_each_resample():
    """Its error, with resamples in which a Brier-n is not positive as zeros."""
    sums = random_sums()
    shifted = NgramSums(0.35 * sums.hits, sums.collisions, sums.counts)
    result = summarize_brier(shifted, resamples=500, seed=2)
    generator = torch.Generator().manual_seed(2)
    drawn = []
    for chosen in torch.randint(12, (500, 12), generator=generator):
        total = (2 * shifted.hits - shifted.collisions)[chosen].sum((0, 2))
        scores = (total / shifted.counts[chosen].sum((0, 2))).tolist()
        drawn.append(100 * math.prod(scores) ** (1 / 3) if min(scores) > 0 else 0.0)
    drawn = torch.tensor(drawn, dtype=torch.float64)
    assert 0 < (drawn == 0).double().mean() < 1
    assert result.estimate.standard_error == pytest.approx(float(drawn.std()))


def test_places_without_an_n_gram_have_no_number():
    sums = random_sums()
    sums.counts[:, 2, 1] = 0
    result = summarize_brier(sums)
    assert math.isnan(result.places[2][1].brier.value)
    assert not math.isnan(result.places[2][0].brier.value)
    sums.counts[:, 2] = 0
    with pytest.raises(ValueError, match=r"every order; Brier-3 has none\. Give longer"):
        summarize_brier(sums)


def test_printed_with_its_protocol_and_places():
    scores = sums_of([0.4, 0.2], chunk_size=2)
    text = str(summarize_brier(scores, protocol="8 draws after 16 chunks"))
    assert text.endswith("\nProtocol: 8 draws after 16 chunks")
    assert "Brier-1  40.00 ± 0.00 (40.00 to 40.00); hit 20.00, collision 0.00" in text
    assert "by place in the chunk: 40.00, 40.00" in text
    assert str(summarize_brier(scores)).endswith("Protocol: not stated")
