import dataclasses

import pytest
import sample_results as samples

from calmkit.evaluation import Timing
from calmkit.metrics import Estimate
from calmkit.reports.columns import Cell, columns_of, rounded, short
from calmkit.reports.lines import baselines, lines_of, ranges


@pytest.mark.parametrize(
    ("value", "error", "cell"),
    [
        (3.14159, 0.1234, Cell("3.14", "±0.12")),
        (-0.0305, 0.0101, Cell("-0.030", "±0.010")),
        (12345.6, 78.9, Cell("12346", "±79")),
        (1e-5, 2e-7, Cell("1.0e-5", "±2e-7")),
        (-0.0000384, 0.0000091, Cell("-3.8e-5", "±9e-6")),
        (0.00297, 0.00088, Cell("0.00297", "±0.00088")),
        (0.89, None, Cell("0.89", "")),
        (0.0, 0.0, Cell("0", "")),
    ],
)
def test_two_digits_of_the_error_are_shown(value, error, cell):
    assert rounded(Estimate(value, error)) == cell


def test_differences_have_a_sign():
    assert rounded(Estimate(0.5, 0.1), signed=True).value == "+0.50"
    assert rounded(None, signed=True) == Cell()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (81.25, "81.2"), (999.4, "999"), (999.6, "1k"), (412_345, "412k"),
     (999_700, "1M"), (1.35e6, "1.35M"), (2.5e13, "2.50e13"), (-5e3, "-5k"), (None, "")],
)  # fmt: skip
def test_three_digits_and_a_unit(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("seeds", "text"),
    [((0,), "0"), ((0, 1), "0-1"), ((4, 2, 0, 1), "0-2,4"), ((1, 3), "1,3"), ((), ""),
     ((None,), "unknown"), ((0, None), "0,unknown")],
)  # fmt: skip
def test_seeds_are_shown_as_ranges(seeds, text):
    assert ranges(seeds) == text


class TestColumns:
    def columns(self, found):
        lines = lines_of(found)
        return {column.heading: column for column in columns_of(lines, baselines(lines))}

    def test_each_has_a_cell_for_every_variant_and_baseline(self):
        for column in self.columns(samples.ten()).values():
            assert len(column.cells) == 12

    def test_continued_text_is_a_mean_over_seeds_in_columns_of_its_own_at_the_end(self):
        several = samples.variant(seeds=(0, 4))
        first = several.runs[0].continuations.model.chrf
        want = Estimate.mean([run.continuations.model.chrf for run in several.runs])
        assert want.standard_error == pytest.approx(first.standard_error)
        silent = samples.variant("flow", continuations=None)
        lines = lines_of(samples.result(several, silent))
        columns = columns_of(lines, baselines(lines))
        assert [column.group for column in columns[-4:]] == ["costs", *["texts"] * 3]
        assert [column.heading[0] for column in columns[-3:]] == ["chrF", "BLEU", "tokens"]
        assert columns[-3].cells[:2] == (rounded(want), Cell())

    def test_losses_of_two_kinds_are_never_in_one_column(self):
        columns = self.columns(samples.ten())
        energy, cross = columns["energy", "score ↓"], columns["cross", "entropy ↓"]
        assert not any(a.value and b.value for a, b in zip(energy.cells, cross.cells, strict=True))
        assert cross.cells[7].value and energy.cells[0].value

    def test_evaluations_that_depend_are_told_apart_from_those_that_are_none(self):
        adaptive = samples.variant("flow", evaluations_per_sample=None)
        found = samples.result(samples.variant(), adaptive, samples.variant("lm", softmax=True))
        cells = self.columns(found)["evals/", "sample"].cells
        assert [cell.value for cell in cells] == ["1", "varies", "", "", ""]

    def test_times_have_their_spread_and_never_that_of_one_measurement(self):
        once = samples.variant("once", microseconds_per_token=Timing.of([1219.0]))
        none = samples.variant("none", microseconds_per_token=None)
        three = dataclasses.replace(once, name="three", runs=(none.runs[0], samples.run(1)))
        cells = self.columns(samples.result(samples.variant(), once, none, three))[
            "µs/", "token"
        ].cells
        assert cells[:4] == (
            Cell("210.3", "±8.4"), Cell("1.22k"), Cell(), Cell("210.3", "±8.4")
        )  # fmt: skip

    def test_rows_with_other_seeds_state_them_and_those_of_the_difference(self):
        columns = self.columns(samples.ten())
        seeds, shared = columns["training", "seeds"].cells, columns["Δ over", "seeds"].cells
        assert [cell.value for cell in seeds[:7]] == ["0-2"] * 5 + ["0-1", "0-2"]
        assert [cell.value for cell in shared[:7]] == ["", *["0-2"] * 4, "0-1", "0-2"]
        assert seeds[9] == shared[9] == Cell()  # it has failed
        alike = self.columns(samples.result(seeds=(0, 1)))
        assert ("training", "seeds") not in alike and ("Δ over", "seeds") not in alike
        fewer = samples.variant("fewer", seeds=(0,))
        columns = self.columns(samples.result(samples.variant(seeds=(0, 1)), fewer))
        assert columns["Δ over", "seeds"].cells[1].value == "0"

    def test_a_unigram_that_differs_by_less_than_is_shown_is_the_same(self):
        near = tuple(Estimate(score.value * (1 + 1e-7), 0.1) for score in samples.UNIGRAM)
        lines = lines_of(
            samples.result(samples.variant(), samples.variant("lm", baselines={"unigram": near}))
        )
        assert [base.name for base in baselines(lines)] == ["unigram", "trigram"]

    def test_other_places_have_another_unigram(self):
        other = samples.variant("flow", baselines={"unigram": (Estimate(0.5, 0.1),) * 4})
        lines = lines_of(samples.result(samples.variant(), other, samples.variant("mixture")))
        assert [base.name for base in baselines(lines)] == [
            "unigram of energy and mixture",
            "unigram of flow",
            "trigram",
        ]
        assert [base.brier[0].value for base in baselines(lines)] == [0.89, 0.5, 4.5]
