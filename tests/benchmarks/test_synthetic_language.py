"""The source with known law: against sums over all hidden paths and all texts."""

import math
from itertools import pairwise, product

import pytest
import torch
from scipy.stats import chisquare
from torch.testing import assert_close

from calmkit.evaluation.scored_text import find_targets


@pytest.fixture
def source(load):
    return load("synthetic_language")


@pytest.fixture
def language(source):
    return source.SyntheticLanguage.seeded(1, states=3, vocab=4, sharpness=1.5)


def probability(language, text):
    """Of a text from its start: a sum over all hidden paths."""
    total = 0.0
    for path in product(range(len(language.start)), repeat=len(text)):
        p = float(language.start[path[0]])
        for before, after in pairwise(path):
            p *= float(language.transition[before, after])
        for state, token in zip(path, text, strict=True):
            p *= float(language.emission[state, token])
        total += p
    return total


def texts(language, length):
    return list(product(range(language.vocab_size), repeat=length))


def test_probabilities_add_up_and_the_start_is_stationary(language):
    assert_close(language.transition.sum(-1), torch.ones(3))
    assert_close(language.emission.sum(-1), torch.ones(3))
    assert language.start.min() > 0 and language.transition.diagonal().min() >= 0.8
    assert_close(language.start.sum(), torch.tensor(1.0))
    assert_close(language.start @ language.transition, language.start)


@pytest.mark.parametrize("past", [(), (2,), (3, 0, 1)])
def test_the_law_of_a_chunk_is_the_sum_over_hidden_paths(language, source, past):
    tokens = torch.tensor([past, past[::-1]], dtype=torch.long)
    belief = language.beliefs(tokens)[:, -1]
    for size in (1, 2, 3):
        law = language.chunk_law(belief, size)
        for row, text in enumerate(tokens.tolist()):
            given = probability(language, text) if text else 1.0
            want = [probability(language, [*text, *c]) / given for c in texts(language, size)]
            assert_close(law[row], torch.tensor(want))
        chunks = torch.tensor(texts(language, size))
        assert source.chunk_numbers(chunks, 4).tolist() == list(range(4**size))


def test_there_is_a_belief_before_each_token_and_after_the_last(language):
    tokens = torch.tensor([[2, 0, 3], [1, 1, 1]])
    beliefs = language.beliefs(tokens)
    assert beliefs.shape == (2, 4, 3)
    for length in range(4):
        assert_close(beliefs[:, length], language.beliefs(tokens[:, :length])[:, -1])


def test_collisions_need_no_enumeration(language):
    beliefs = language.beliefs(torch.tensor([[0, 1, 2], [3, 3, 0]]))
    for order in (1, 2, 3, 4):
        want = language.chunk_law(beliefs, order).square().sum(-1)
        assert_close(language.collision(beliefs, order), want)


def test_the_entropy_rate_is_bounded_by_entropies_of_whole_texts(language, source):
    def joint(length):
        return -sum(
            p * math.log(p) for p in (probability(language, t) for t in texts(language, length))
        )

    low, high = language.entropy_rate_bounds(3)
    assert high == pytest.approx(joint(3) - joint(2), rel=1e-12)
    tighter = language.entropy_rate_bounds(6)
    assert low < tighter[0] < tighter[1] < high


def test_both_bounds_are_the_rate_where_tokens_show_the_states(source, language):
    shown = source.SyntheticLanguage(language.transition, torch.eye(3), language.start)
    t, start = language.transition, language.start
    rate = -sum(float(start[i] * t[i, j] * t[i, j].log()) for i, j in product(range(3), repeat=2))
    assert shown.entropy_rate_bounds(2) == pytest.approx((rate, rate), rel=1e-12)
    assert_close(source.entropy(torch.tensor([0.0, 1.0])), torch.tensor(0.0))


def test_texts_have_the_law_everywhere_and_another_language_is_told_apart(language, source):
    tokens = language.sample(20_000, 5, torch.Generator().manual_seed(0))
    other = source.SyntheticLanguage.seeded(1, states=3, vocab=4, stay=0.6, sharpness=1.5)
    for place in (0, 2):
        numbers = source.chunk_numbers(tokens[:, place : place + 3], 4)
        counts = torch.bincount(numbers, minlength=64).numpy()

        def p_value(language, counts=counts):
            law = language.chunk_law(language.start, 3).numpy()
            return chisquare(counts, len(tokens) * law / law.sum()).pvalue

        assert p_value(language) > 1e-6 > p_value(other)
    again = language.sample(20_000, 5, torch.Generator().manual_seed(0))
    assert torch.equal(tokens, again)


@pytest.mark.parametrize(("chunk", "min_context"), [(1, 3), (2, 1), (4, 1)])
def test_the_optimum_is_the_score_of_the_truth_at_what_is_scored(
    language, source, chunk, min_context
):
    tokens = language.sample(3, 12, torch.Generator().manual_seed(0)).view(3, -1, chunk)
    targets = find_targets(tokens, torch.ones_like(tokens).bool(), min_context)
    drawn = max(chunk, 4)
    wanted = []
    for order in (1, 2, 3, 4):
        scores = []
        for row in tokens.flatten(1):
            for begin in range(min_context * chunk, 12, chunk):
                belief = language.beliefs(row[None, :begin])[0, -1]
                for start in range(chunk):
                    if start + order > drawn or begin + start + order > 12:
                        continue
                    # All continuations up to the n-gram's end; what comes before it is summed.
                    law = language.chunk_law(belief, start + order).view(4**start, -1).sum(0)
                    outcomes = [2 * float(p) - float(law.square().sum()) for p in law]
                    scores.append(sum(float(p) * s for p, s in zip(law, outcomes, strict=True)))
        wanted.append(sum(scores) / len(scores))
    assert source.optimal_brier(language, tokens, targets) == pytest.approx(wanted, rel=1e-12)


def test_block_size_moves_the_best_score_that_any_model_can_have(source):
    """The same text, scored in longer rows: more of its tokens have more text before them."""
    language = source.SyntheticLanguage.seeded(0, stay=0.99, sharpness=1.5)
    text = language.sample(64, 64, torch.Generator().manual_seed(0))
    found = []
    for length in (8, 16, 64):
        tokens = text.view(-1, length // 4, 4)
        targets = find_targets(tokens, torch.ones_like(tokens).bool(), 1)
        best = source.optimal_brier(language, tokens, targets)
        found.append(100 * math.prod(best) ** (1 / 4))
    # Measured: 4.63, 5.02 and 5.44, in per cent: more by 18 % for the same law of the text.
    assert found[0] < found[1] < found[2] and found[2] > 1.1 * found[0], found


def test_seeds_and_settings(source):
    def build(seed, **settings):
        return source.SyntheticLanguage.seeded(seed, **settings)

    assert torch.equal(build(0).emission, build(0).emission)
    assert not torch.equal(build(0).emission, build(1).emission)
    assert build(0).emission.shape == (6, 8) and build(0).transition.dtype == torch.float64
    level = build(0, states=3, vocab=5, stay=0.0, sharpness=0.0)
    assert_close(level.emission, torch.full((3, 5), 0.2))
    assert level.transition.min() > 0
    with pytest.raises(ValueError, match="states and vocab must be at least 2; got 1 and 8"):
        build(0, states=1)
    with pytest.raises(ValueError, match=r"stay must be in \[0, 1\).* got 1\.0 and 3\.0"):
        build(0, stay=1.0)
    with pytest.raises(ValueError, match=r"must not be negative; got 0\.8 and -1\.0"):
        build(0, sharpness=-1.0)
