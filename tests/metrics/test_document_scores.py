"""Scores by document: the paired bootstrap by enumeration, JSON, and what cannot be paired."""

import dataclasses
import itertools
import json
import math

import pytest
import torch

from calmkit.metrics import DocumentScores, paired_difference

SUMS, COUNTS = [[3.0, 1.0], [1.0, 4.0], [7.0, 2.0]], [[4.0, 2.0], [3.0, 5.0], [8.0, 4.0]]
OTHERS, OTHER_COUNTS = [[2.0, 2.0], [0.5, 3.0], [7.5, 1.0]], [[4.0, 2.0], [2.0, 5.0], [8.0, 3.0]]


def scores(sums=SUMS, counts=COUNTS, **changes):
    tables = (torch.tensor(x, dtype=torch.float64) for x in (sums, counts))
    made = DocumentScores(("brier_1", "energy_score"), *tables, (4, 7, 9), "documents")
    return dataclasses.replace(made, **changes)


def by_enumeration(sums, counts, other_sums, other_counts, metric):
    """The difference of two ratios in each of the 3^3 resamples of three documents."""
    differences = []
    for chosen in itertools.product(range(3), repeat=3):
        means = [
            sum(s[g][metric] for g in chosen) / sum(c[g][metric] for g in chosen)
            for s, c in ((sums, counts), (other_sums, other_counts))
        ]
        differences.append(means[0] - means[1])
    return torch.tensor(differences, dtype=torch.float64)


def test_paired_difference_by_enumeration():
    resamples = 40_000
    got = paired_difference(scores(), scores(OTHERS, OTHER_COUNTS), resamples=resamples)
    for metric, one in enumerate(got):
        drawn = by_enumeration(SUMS, COUNTS, OTHERS, OTHER_COUNTS, metric)
        whole = [
            sum(row[metric] for row in s) / sum(row[metric] for row in c)
            for s, c in ((SUMS, COUNTS), (OTHERS, OTHER_COUNTS))
        ]
        assert one.value == pytest.approx(whole[0] - whole[1], abs=1e-12)
        # Relative error of a standard deviation from 40 000 draws: below 0.5 %, five times.
        assert one.standard_error == pytest.approx(float(drawn.std(correction=0)), rel=0.025)
        # 27 outcomes: each end is one of them, and has the right probability on its side.
        for end, below in zip(one.interval, (0.025, 0.975), strict=True):
            under = (drawn < end - 1e-9).double().mean()
            up_to = (drawn < end + 1e-9).double().mean()
            assert under - 0.005 < below < up_to + 0.005


def test_pairing_removes_what_documents_share():
    """A constant less in every token of every document, however hard it is: no doubt is left."""
    noise = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.full((50, 1), 10.0, dtype=torch.float64)
    groups = tuple(range(50))
    first = DocumentScores(("loss",), 10 * noise, counts, groups, "rows")
    second = DocumentScores(("loss",), 10 * noise - 1, counts, groups, "rows")
    (difference,) = paired_difference(first, second)
    assert difference.value == pytest.approx(0.1)
    assert difference.standard_error == pytest.approx(0, abs=1e-12)
    assert difference.interval == pytest.approx((0.1, 0.1))
    assert first.estimate()[0].standard_error > 0.1


def test_a_model_does_not_differ_from_itself_and_signs_turn():
    same = paired_difference(scores(), scores())
    assert [(d.value, d.standard_error, d.interval) for d in same] == [(0, 0, (0, 0))] * 2
    one = paired_difference(scores(), scores(OTHERS, OTHER_COUNTS), seed=3)
    other = paired_difference(scores(OTHERS, OTHER_COUNTS), scores(), seed=3)
    for a, b in zip(one, other, strict=True):
        assert a.value == -b.value
        assert a.interval == pytest.approx((-b.interval[1], -b.interval[0]))


def test_estimates_are_ratios_of_sums():
    values = [one.value for one in scores().estimate(resamples=10)]
    assert values == pytest.approx([11 / 15, 7 / 11])
    narrow, wide = (scores().estimate(level=level)[0].interval for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < 11 / 15 < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("brier_1", "cross_entropy")}, "names must be the same.*cross_entropy"),
        ({"groups": (4, 7, 8)}, r"groups must be the same.*\(4, 7, 9\) and \(4, 7, 8\)"),
        ({"unit": "rows"}, "unit must be the same in both.*documents and rows.*same rows"),
    ],
)
def test_what_cannot_be_paired_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(scores(), scores(**changes))


def test_selected_metrics():
    one = scores().select("energy_score")
    assert one.names == ("energy_score",) and one.groups == (4, 7, 9)
    assert one.sums.tolist() == [[1], [4], [2]] and one.counts.tolist() == [[2], [5], [4]]
    with pytest.raises(ValueError, match="names must be among brier_1, energy_score; got 'hit'"):
        scores().select("hit")


def test_one_metric_more():
    values, counts = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 1.0, 2.0, 2.0])
    more = scores().with_metric("hit", values, counts, torch.tensor([9, 4, 9, 4]))
    assert more.names == ("brier_1", "energy_score", "hit")
    assert more.sums.tolist() == [[3, 1, 10], [1, 4, 0], [7, 2, 5]]
    assert more.counts.tolist() == [[4, 2, 3], [3, 5, 0], [8, 4, 3]]
    assert (more.groups, more.unit) == ((4, 7, 9), "documents")
    with pytest.raises(ValueError, match="name must be new; got 'hit'"):
        more.with_metric("hit", values, counts, torch.tensor([9, 4, 9, 4]))
    with pytest.raises(ValueError, match="group must hold documents that are in groups; got 5"):
        scores().with_metric("hit", values, counts, torch.tensor([9, 4, 5, 4]))


def test_survives_json():
    odd = scores([[math.nan, 1.0], [1.0, 4.0], [7.0, 0.1 + 0.2]])
    text = json.dumps(odd.to_dict(), allow_nan=False)
    read = DocumentScores.from_dict(json.loads(text))
    assert read == odd and read != scores() and read != "scores"
    torch.testing.assert_close(read.sums, odd.sums, rtol=0, atol=0, equal_nan=True)
    assert (read.names, read.groups, read.unit) == (odd.names, odd.groups, odd.unit)


def test_wrong_tables_are_named():
    content = scores().to_dict()
    for wrong in ({"names": ["brier_1"]}, {"sums": None}, {"sums": [[1.0]]}):
        with pytest.raises(ValueError, match="content must be a mapping as given by"):
            DocumentScores.from_dict({**content, **wrong})
    with pytest.raises(ValueError, match=r"content must be.*KeyError: 'unit'"):
        DocumentScores.from_dict({k: v for k, v in content.items() if k != "unit"})
    with pytest.raises(ValueError, match=r"sums must have 3 groups and 1 metrics.*\(3, 2\)"):
        scores(names=("brier_1",))
