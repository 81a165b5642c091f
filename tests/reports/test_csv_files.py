import csv
import io

import pytest
import sample_results as samples

from calmkit.comparison import summarize
from calmkit.reports import Report
from calmkit.reports.csv_files import to_csv, to_summary_csv


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestRuns:
    def test_one_line_for_each_variant_and_seed_at_full_precision(self):
        found = samples.ten()
        read = lines(to_csv(found))
        assert [(line["variant"], int(line["seed"])) for line in read] == [
            (variant.name, one.seed)
            for variant in found.variants
            for one in (*variant.runs, *variant.failures)
        ]
        first = found.variants[0].runs[0]
        assert float(read[0]["brier_2"]) == first.brier[1].value
        assert float(read[0]["brier_2_se"]) == first.brier[1].standard_error
        assert float(read[0]["training_flops"]) == first.training_flops
        assert int(read[0]["steps"]) == first.steps
        times = [float(read[0][f"microseconds_per_token{end}"]) for end in ("", "_spread")]
        assert times == [210.3, 8.4]
        assert float(read[0]["continued_chrf"]) == first.continuations.model.chrf.value
        assert float(read[0]["continued_accuracy_se"]) == (
            first.continuations.model.accuracy.standard_error
        )

    def test_a_failed_run_has_its_reason_and_no_numbers(self):
        failed = [line for line in lines(to_csv(samples.ten())) if line["failure"]]
        assert [line["variant"] for line in failed] == ["meanflow", *["flow-deep"] * 3]
        assert failed[0]["failure"] == "out of memory" and failed[0]["brier_1"] == ""

    def test_what_is_not_known_is_empty(self):
        (line,) = lines(to_csv(samples.only_measured()))
        assert (
            line["steps"]
            == line["training_seconds"]
            == line["cross_entropy"]
            == line["cross_entropy_se"]
            == ""
        )
        assert line["evaluations_per_sample"] == "1"

    def test_commas_and_newlines_in_reasons_survive(self):
        reason = 'a "reason",\nin two lines'
        (line,) = lines(to_csv(samples.result(samples.variant(seeds=(), failures=[(7, reason)]))))
        assert line["failure"] == reason and line["seed"] == "7"


@pytest.fixture(scope="module")
def summary_of_ten():
    """The lines of a summary by their variant."""
    return {line["variant"]: line for line in lines(to_summary_csv(Report.of(samples.ten())))}


class TestSummary:
    def test_one_line_for_each_variant_and_baseline(self):
        found = samples.ten()
        read = lines(to_summary_csv(Report.of(found)))
        names = [variant.name for variant in found.variants]
        assert [line["variant"] for line in read] == [*names, "unigram", "trigram"]
        for summary in summarize(found):
            line = read[names.index(summary.name)]
            assert float(line["brier_1"]) == summary.brier[0].value
            assert float(line["brier_lm"]) == summary.brier_lm.value
            assert float(line["chosen_accuracy_se"]) == summary.accuracy.standard_error
            if summary.brier_difference:
                assert float(line["brier_1_difference"]) == summary.brier_difference[0].value
        assert [float(line["brier_4"]) for line in read[-2:]] == [1e-5, 2e-3]
        assert float(read[-1]["brier_lm"]) == pytest.approx((4.5 * 0.3 * 0.02 * 2e-3) ** 0.25)

    @pytest.mark.parametrize(
        ("name", "seeds", "failures"),
        [("energy", "3", "0"), ("meanflow", "2", "1"), ("flow-deep", "0", "3")],
    )
    def test_tells_how_many_seeds_it_is_a_mean_of(self, summary_of_ten, name, seeds, failures):
        line = summary_of_ten[name]
        assert (line["seeds"], line["failures"]) == (seeds, failures)

    def test_tells_what_differences_are_over(self, summary_of_ten):
        shared = {
            name: (line["shared_seeds"], line["shared_documents"])
            for name, line in summary_of_ten.items()
        }
        assert shared["mixture"] == ("3", "20") and shared["meanflow"] == ("2", "20")
        assert shared["energy"] == ("0", "0") and shared["flow-deep"] == ("", "")

    def test_losses_have_columns_of_their_own(self, summary_of_ten):
        line = summary_of_ten
        assert line["token_lm"]["cross_entropy"] and not line["token_lm"]["energy_score"]
        assert line["energy"]["energy_score"] and not line["energy"]["cross_entropy"]
