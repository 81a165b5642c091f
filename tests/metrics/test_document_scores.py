"""Scores by document: the paired bootstrap by enumeration, JSON, and what cannot be paired."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from scipy import stats

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


def test_interval_of_a_paired_difference_as_a_loop():
    """Each document is left out of both; the shares of its tokens are averaged."""
    got = paired_difference(scores(), scores(OTHERS, OTHER_COUNTS), resamples=10)
    for metric, one in enumerate(got):
        squares, kept = 0.0, 0.0
        for left_out in range(3):
            means = []
            for s, c in ((SUMS, COUNTS), (OTHERS, OTHER_COUNTS)):
                rest = [g for g in range(3) if g != left_out]
                means.append(sum(s[g][metric] for g in rest) / sum(c[g][metric] for g in rest))
            squares += (means[0] - means[1] - one.value) ** 2
            share = sum(
                c[left_out][metric] / sum(row[metric] for row in c) / 2
                for c in (COUNTS, OTHER_COUNTS)
            )
            kept += share**2
        half = stats.t.ppf(0.975, 1 / kept - 1) * math.sqrt(squares * 2 / 3)
        assert one.interval == pytest.approx((one.value - half, one.value + half), rel=1e-9)


def test_pairing_removes_what_documents_share():
    """A constant less in every token of every document, however hard it is: no doubt is left."""
    noise = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.full((50, 1), 10.0, dtype=torch.float64)
    groups = tuple(range(50))
    first = DocumentScores(("loss",), 10 * noise, counts, groups, "documents")
    second = DocumentScores(("loss",), 10 * noise - 1, counts, groups, "documents")
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


def test_rows_have_errors_but_no_intervals():
    """Rows of one document are alike: that they cover what they promise is not so."""
    rows, other = scores(unit="rows"), scores(OTHERS, OTHER_COUNTS, unit="rows")
    documents = scores().estimate()
    for one, same in zip(rows.estimate(), documents, strict=True):
        assert (one.value, one.standard_error) == (same.value, same.standard_error)
        assert one.interval is None and same.interval is not None
    assert [one.interval for one in paired_difference(rows, other)] == [None, None]


def test_documents_without_a_scored_token_change_nothing():
    """Neither the value nor the interval; the bootstrap may draw them."""
    more = dataclasses.replace(
        scores(),
        sums=torch.cat([scores().sums, torch.zeros(2, 2, dtype=torch.float64)]),
        counts=torch.cat([scores().counts, torch.zeros(2, 2, dtype=torch.float64)]),
        groups=(4, 7, 9, 11, 12),
    )
    for one, same in zip(more.estimate(), scores().estimate(), strict=True):
        assert one.value == same.value and one.interval == pytest.approx(same.interval)
    pair = paired_difference(more, more)
    assert [(one.value, one.interval) for one in pair] == [(0.0, (0.0, 0.0))] * 2


def test_differing_documents_scored_by_two_models():
    """Of one document only the first model has tokens: it still counts, in that one's mean."""
    counts = [[0.0, 2.0], [3.0, 5.0], [8.0, 4.0]]
    sums = [[0.0, 1.0], [1.0, 4.0], [7.0, 2.0]]
    (one, _) = paired_difference(scores(), scores(sums, counts))
    assert one.value == pytest.approx(11 / 15 - 8 / 11)
    assert one.interval[0] < one.value < one.interval[1] and one.standard_error > 0
    nothing = scores([[0.0, 1.0]] * 3, [[0.0, 2.0]] * 3)
    with pytest.raises(
        ValueError, match=r"brier_1 has no token in any of the 3 documents\. Leave"
    ):
        paired_difference(scores(), nothing)


def test_a_single_document_is_named():
    table = torch.ones(1, 1, dtype=torch.float64)
    alone = DocumentScores(("brier_1",), table, table, (3,), "documents")
    for asked in (alone.estimate, lambda: paired_difference(alone, alone)):
        with pytest.raises(ValueError, match=r"documents must be at least 2 for a .*; got 1"):
            asked()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (4, 7, 4)}, "groups must not repeat; got 4 twice"),
        ({"names": ("hit", "hit")}, "names must not repeat; got 'hit' twice"),
        ({"counts": [[-1.0, 1.0]] * 3}, "counts must be finite and not negative"),
        ({"counts": [[math.nan, 1.0]] * 3}, "counts must be finite and not negative"),
    ],
)
def test_what_is_no_table_of_documents_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        scores(**changes)


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


def test_what_a_type_check_says_of_a_file_is_one_line():
    content = {"names": ["a"], "groups": [0], "sums": [[1.0]], "counts": [[1.0]], "unit": "lines"}
    with pytest.raises(ValueError, match=r"content must be.*TypeCheckError") as caught:
        DocumentScores.from_dict(content)
    assert "\n" not in str(caught.value)
