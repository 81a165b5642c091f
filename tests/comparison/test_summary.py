"""Errors of means over seeds, and paired differences, against plain loops and a simulation."""

import dataclasses
import math

import pytest
import torch
from sample_results import run, variant
from scipy import stats

from calmkit.comparison import ComparisonResult, summarize
from calmkit.comparison.results import VariantResult
from calmkit.metrics import DocumentScores

RESAMPLES = 1000


def result(*variants):
    seeds = tuple(sorted({r.seed for v in variants for r in v.runs}))
    return ComparisonResult(
        name="x", variants=variants, seeds=seeds, budget="steps", corpus_name="t",
        corpus_digest="0" * 64, config="", hardware="CPU", versions={},
    )  # fmt: skip


def scored(name, table, *, groups=None, loss="energy_score"):
    """A variant whose scores are given, each over a thousand tokens.

    They are (seeds, documents, 5), or (seeds, documents, 6) with the accuracy of choices.
    """
    runs = []
    for seed, rates in enumerate(torch.as_tensor(table, dtype=torch.float64)):
        counts = torch.full_like(rates, 1000.0)
        documents = DocumentScores(
            names=("brier_1", "brier_2", "brier_3", "brier_4", loss, "chosen_accuracy")[
                : rates.shape[1]
            ],
            sums=rates * counts,
            counts=counts,
            groups=tuple(groups or range(len(rates))),
            unit="documents",
        )
        runs.append(dataclasses.replace(run(seed), documents=documents))
    whole = variant(name)
    return VariantResult(**{**vars(whole), "runs": tuple(runs)})


def draws(documents):
    """How often each document is drawn in each resample, as the library draws them."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(documents, (RESAMPLES, documents), generator=generator)
    times = torch.zeros(RESAMPLES, documents, dtype=torch.float64)
    return times.scatter_add_(1, chosen, torch.ones_like(times))


def table(seeds, documents, *, seed=0, level=0.05, metrics=5):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(seeds, documents, metrics, generator=generator, dtype=torch.float64)
    return level * (0.5 + spread)


def error_of(values, drawn):
    """The formula of the module, as a loop over seeds and resamples."""
    mean = sum(values) / len(values)
    means = [sum(row) / len(row) for row in zip(*drawn, strict=True)]
    center = sum(means) / len(means)
    of_text = sum((x - center) ** 2 for x in means) / (len(means) - 1)
    of_seeds = 0.0
    if len(values) > 1:
        of_seeds = sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values)
    return math.sqrt(of_text + of_seeds)


@pytest.mark.parametrize("seeds", [1, 3])
def test_means_and_their_errors(seeds):
    rates = table(seeds, 12)
    (found,) = summarize(result(scored("a", rates)))
    times = draws(12)
    for n in range(4):
        values = (100 * rates[:, :, n].mean(dim=1)).tolist()
        drawn = [(100 * (times @ one[:, n]) / times.sum(dim=1)).tolist() for one in rates]
        assert found.brier[n].value == pytest.approx(sum(values) / seeds, rel=1e-12)
        assert found.brier[n].standard_error == pytest.approx(error_of(values, drawn), rel=1e-9)
    assert found.loss.value == pytest.approx(rates[:, :, 4].mean().item(), rel=1e-12)
    assert found.seeds == tuple(range(seeds)) and found.documents == 12


def test_a_difference_is_that_of_the_same_documents_and_seeds():
    first, second = table(3, 12), table(3, 12, seed=1)
    _, found = summarize(result(scored("a", first), scored("b", second)))
    times = draws(12)
    for n in range(4):
        change = 100 * (second - first)[:, :, n]
        drawn = [((times @ one) / times.sum(dim=1)).tolist() for one in change]
        values = change.mean(dim=1).tolist()
        assert found.brier_difference[n].value == pytest.approx(sum(values) / 3, rel=1e-9)
        assert found.brier_difference[n].standard_error == pytest.approx(
            error_of(values, drawn), rel=1e-9
        )


def test_what_is_hard_for_both_cancels():
    hard = table(2, 12)
    better = hard + 0.001
    first, second = summarize(result(scored("a", hard), scored("b", better)))
    assert second.brier[0].standard_error > 0.05
    assert second.brier_difference[0].value == pytest.approx(0.1, rel=1e-9)
    assert second.brier_difference[0].standard_error < 1e-12
    assert first.brier_difference == ()
    assert first.brier_lm_difference is None


def test_a_difference_is_over_the_documents_that_both_have():
    """Documents 0 to 9 are shared; of document 3 the second one has scored other tokens."""
    first, second = table(2, 12), table(2, 14, seed=1)
    one, other = scored("a", first), scored("b", second, groups=[*range(10), *range(20, 24)])
    for one_run in other.runs:
        one_run.documents.counts[3] += 8
    _, found = summarize(result(one, other))
    shared = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (found.documents, found.shared_documents, found.shared_seeds) == (14, 9, (0, 1))
    _, alone = summarize(result(scored("a", first[:, shared]), scored("b", second[:, shared])))
    assert found.brier_difference == alone.brier_difference
    assert found.brier_lm_difference == alone.brier_lm_difference
    assert found.loss_difference == alone.loss_difference
    # The scores themselves are over all that each has.
    assert found.brier[0].value != alone.brier[0].value


@pytest.mark.parametrize("shared", [0, 1])
def test_without_two_shared_documents_there_is_no_difference(shared):
    one, other = table(2, 12), table(2, 12, seed=1)
    other = scored("b", other, groups=[*range(shared), *range(20, 32 - shared)])
    _, found = summarize(result(scored("a", one), other))
    assert (found.shared_seeds, found.shared_documents) == ((), 0)
    assert found.brier_difference == () and found.brier_lm_difference is None
    assert found.loss_difference is None and len(found.brier) == 4


def test_without_a_shared_seed_there_is_no_difference():
    rates = table(2, 12)
    one, other = scored("a", rates), scored("b", rates + 0.01)
    runs = tuple(dataclasses.replace(run, seed=run.seed + 7) for run in other.runs)
    _, found = summarize(result(one, VariantResult(**{**vars(other), "runs": runs})))
    assert found.seeds == (7, 8) and found.shared_seeds == () == found.brier_difference
    assert found.brier_lm_difference is None


def test_differences_are_over_the_seeds_that_both_have():
    rates = table(3, 12)
    whole, part = scored("a", rates), scored("b", rates + 0.01)
    part = VariantResult(**{**vars(part), "runs": part.runs[1:]})
    _, found = summarize(result(whole, part))
    assert found.seeds == (1, 2) == found.shared_seeds and found.shared_documents == 12
    assert found.brier_difference[0].value == pytest.approx(1.0, rel=1e-9)


def test_brier_lm_and_its_linear_error():
    """Small errors: the linear part is nearly the error of the geometric mean itself."""
    rates = table(1, 400)
    (found,) = summarize(result(scored("a", rates)))
    brier = 100 * rates[0, :, :4].mean(dim=0)
    assert found.brier_lm.value == pytest.approx(float(brier.log().mean().exp()), rel=1e-12)
    times = draws(400)
    drawn = 100 * (times @ rates[0, :, :4]) / times.sum(dim=1, keepdim=True)
    whole = drawn.log().mean(dim=1).exp().std()
    assert found.brier_lm.standard_error == pytest.approx(float(whole), rel=0.01)


def test_a_difference_of_brier_lm_is_paired():
    hard = table(2, 40)
    first, second = summarize(result(scored("a", hard), scored("b", 1.02 * hard)))
    difference = second.brier_lm_difference
    assert difference.value == pytest.approx(0.02 * first.brier_lm.value, rel=1e-9)
    assert difference.standard_error == pytest.approx(
        0.02 * first.brier_lm.standard_error, rel=1e-6
    )


def test_without_a_value_there_is_no_error():
    low = table(2, 12)
    low[:, :, 2] = -0.001
    first, second = summarize(result(scored("a", table(2, 12)), scored("b", low)))
    assert second.brier_lm.value == 0 and second.brier_lm.standard_error is None
    assert second.brier_lm_difference is None
    assert second.brier_difference[2].value < 0 < first.brier_lm.value


def test_losses_of_different_kinds_are_not_compared():
    one, other = scored("a", table(1, 12)), scored("b", table(1, 12), loss="cross_entropy")
    _, found = summarize(result(one, other))
    assert found.loss_difference is None
    assert found.brier_difference[0].value == 0


def test_accuracy_is_in_per_cent_and_paired():
    first, second = (table(3, 12, seed=seed, metrics=6) for seed in (0, 1))
    one, other = summarize(result(scored("a", first), scored("b", second)))
    times = draws(12)
    values = (100 * first[:, :, 5].mean(dim=1)).tolist()
    drawn = [(100 * (times @ x[:, 5]) / times.sum(dim=1)).tolist() for x in first]
    assert one.accuracy.value == pytest.approx(sum(values) / 3, rel=1e-12)
    assert one.accuracy.standard_error == pytest.approx(error_of(values, drawn), rel=1e-9)
    change = 100 * (second - first)[:, :, 5]
    drawn = [((times @ x) / times.sum(dim=1)).tolist() for x in change]
    values = change.mean(dim=1).tolist()
    assert other.accuracy_difference.value == pytest.approx(sum(values) / 3, rel=1e-9)
    assert other.accuracy_difference.standard_error == pytest.approx(
        error_of(values, drawn), rel=1e-9
    )
    assert one.accuracy_difference is None


def test_accuracy_may_be_known_of_some_only():
    """Of a softmax beside it, too, whose loss is another."""
    rates = table(1, 12, metrics=6)
    one, softmax = scored("a", rates), scored("b", rates, loss="cross_entropy")
    without = scored("c", rates[..., :5])
    _, b, c = summarize(result(one, softmax, without))
    assert b.accuracy_difference.value == 0 and b.loss_difference is None
    assert c.accuracy is None and c.accuracy_difference is None
    assert c.loss_difference.value == 0


def test_variants_without_a_run_are_left_out():
    empty = VariantResult(**{**vars(variant("none")), "runs": ()})
    found = summarize(result(empty, scored("a", table(1, 12)), scored("b", table(1, 12))))
    assert [one.name for one in found] == ["a", "b"]
    assert found[0].brier_difference == () and found[1].brier_difference[0].value == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_have_both_parts(seeds):
    """A mean over documents of equal length, and Welch and Satterthwaite's degrees of freedom."""
    rates = table(seeds, 12)
    (found,) = summarize(result(scored("a", rates)))
    for n in range(4):
        each = 100 * rates[:, :, n]
        variances = [(float(each.mean(dim=0).var()) / 12, 11)]
        if seeds > 1:
            variances.append((float(each.mean(dim=1).var()) / seeds, seeds - 1))
        variance = sum(v for v, _ in variances)
        degrees = variance**2 / sum(v**2 / d for v, d in variances)
        half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
        want = float(each.mean()) - half, float(each.mean()) + half
        assert found.brier[n].interval == pytest.approx(want, rel=1e-9)


def test_intervals_of_differences():
    first, second = table(3, 12), table(3, 12, seed=1)
    _, found = summarize(result(scored("a", first), scored("b", second)))
    each = 100 * (second - first)[:, :, 0]
    parts = (float(each.mean(dim=0).var()) / 12, 11), (float(each.mean(dim=1).var()) / 3, 2)
    variance = sum(v for v, _ in parts)
    degrees = variance**2 / sum(v**2 / d for v, d in parts)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    want = float(each.mean()) - half, float(each.mean()) + half
    assert found.brier_difference[0].interval == pytest.approx(want, rel=1e-9)


def test_runs_on_documents_of_their_own():
    """Two seeds with other documents each: both scatter on their own."""
    runs = (
        *scored("a", table(1, 12)).runs,
        *scored("a", table(1, 12, seed=1), groups=range(50, 62)).runs,
    )
    runs = tuple(dataclasses.replace(run, seed=seed) for seed, run in enumerate(runs))
    both = VariantResult(**{**vars(variant("a")), "runs": runs})
    (found,) = summarize(result(both))
    rates = torch.cat([table(1, 12), table(1, 12, seed=1)])[:, :, 1] * 100
    of_text = sum(float(x.var()) / 12 for x in rates) / 4
    # All 24 documents count alike: 23 / 24 of the squares, where each run by itself has 11 / 12.
    of_text *= (23 / 24) / (11 / 12)
    of_seeds = float(rates.mean(dim=1).var()) / 2
    degrees = (of_text + of_seeds) ** 2 / (of_text**2 / 23 + of_seeds**2 / 1)
    half = stats.t.ppf(0.975, max(degrees, 1)) * math.sqrt(of_text + of_seeds)
    want = float(rates.mean()) - half, float(rates.mean()) + half
    assert found.brier[1].interval == pytest.approx(want, rel=1e-9)


def test_brier_lm_has_the_interval_of_its_linear_part():
    rates = table(1, 40)
    (found,) = summarize(result(scored("a", rates)))
    brier = 100 * rates[0, :, :4].mean(dim=0)
    linear = 100 * rates[0, :, :4] @ (found.brier_lm.value / 4 / brier)
    want = stats.t.interval(0.95, 39, loc=found.brier_lm.value, scale=stats.sem(linear.numpy()))
    assert found.brier_lm.interval == pytest.approx(want, rel=1e-9)
    low = rates.clone()
    low[:, :, 2] = torch.linspace(-0.01, 0.0095, 40, dtype=torch.float64)
    (none,) = summarize(result(scored("a", low)))
    high = math.prod(one.interval[1] for one in none.brier) ** 0.25
    assert none.brier_lm.value == 0 and none.brier_lm.interval == pytest.approx((0.0, high))


def test_over_rows_there_are_no_intervals():
    def over_rows(one):
        runs = tuple(
            dataclasses.replace(run, documents=dataclasses.replace(run.documents, unit="rows"))
            for run in one.runs
        )
        return VariantResult(**{**vars(one), "runs": runs})

    variants = scored("a", table(2, 12)), scored("b", table(2, 12, seed=1))
    plain = summarize(result(*variants))[1]
    rows = summarize(result(*map(over_rows, variants)))[1]
    for name in ("brier_lm", "loss", "brier_lm_difference", "loss_difference"):
        assert getattr(rows, name).interval is None, name
        assert getattr(plain, name).interval is not None, name
    assert rows.brier[0].standard_error == plain.brier[0].standard_error
    # Rows are numbered in each evaluation, so that only whole sets of them can be the same.
    fewer = scored("b", table(2, 11, seed=1))
    for other in (variants[1], over_rows(fewer)):
        assert summarize(result(over_rows(variants[0]), other))[1].brier_difference == ()


def test_the_error_is_that_of_repeated_experiments():
    """Documents and seeds are drawn anew 200 times: the mean scatters by what is reported."""
    generator = torch.Generator().manual_seed(3)
    means, errors, held = [], [], 0
    for _ in range(200):
        of_documents = 0.02 * torch.randn(1, 30, 1, generator=generator)
        of_seeds = 0.008 * torch.randn(4, 1, 1, generator=generator)
        rest = 0.01 * torch.randn(4, 30, 5, generator=generator)
        (found,) = summarize(result(scored("a", 0.2 + of_documents + of_seeds + rest)))
        means.append(found.brier[0].value)
        errors.append(found.brier[0].standard_error ** 2)
        held += found.brier[0].interval[0] < 20 < found.brier[0].interval[1]
    scatter, reported = torch.tensor(means).var(), sum(errors) / len(errors)
    # 200 experiments tell a variance to 10 per cent.
    assert 0.75 < reported / float(scatter) < 1.35
    assert held / 200 > 0.95 - 5 * 0.0155
