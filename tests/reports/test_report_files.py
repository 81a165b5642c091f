import dataclasses
import io
import math

import pytest
import sample_results as samples
from rich.console import Console

from calmkit.comparison import read_results, summarize
from calmkit.reports import Report, ReportTables, write_report


def shown(found, width=100):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(ReportTables(Report.of(found)))
    return console.file.getvalue()


def line_of(text, name, after=""):
    """The first line of a variant, from some text on."""
    return next(line for line in text[text.index(after) :].splitlines() if name in line.split())


class TestTable:
    @pytest.mark.parametrize(
        "found", [samples.ten(), samples.result(), samples.only_measured()], ids=["10", "2", "1"]
    )
    def test_fits_100_columns_with_nothing_cut(self, found):
        text = shown(found)
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text and "nan" not in text.replace("loss is nan at step 17", "")

    @pytest.mark.parametrize("width", [40, 60, 80, 250])
    def test_any_width_shows_every_number_whole(self, width):
        found = samples.ten()
        text = shown(found, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        words = set(text.split())
        for column in Report.of(found).columns:
            for cell in column.cells:
                assert cell.value in ("", "failed") or cell.value in words
                assert cell.error in ("", *words)

    def test_a_wide_terminal_gets_one_table(self):
        text = shown(samples.result(), width=250)
        assert text.count("heads: ") == 1

    def test_costs_get_a_table_of_their_own_only_where_one_does_not_suffice(self):
        assert "heads: scores on held-out text" in shown(samples.result())
        assert "heads: costs" in shown(samples.result())
        assert "heads: continued text" in shown(samples.result())
        one = shown(samples.only_measured())
        assert "heads: scores on held-out text" in one and "costs" not in one

    def test_a_single_measured_model_is_short(self):
        text = shown(samples.only_measured())
        assert len(text.splitlines()) <= 30
        for absent in ("Δ", "FLOPs of", "Budget", "entropy", "draws/", "seconds"):
            assert absent not in text

    def test_shows_each_number_with_two_digits_of_its_error(self):
        found = samples.result()
        text = shown(found)
        energy, flow = summarize(found)
        for estimate in (energy.brier_lm, *energy.brier, energy.loss, *flow.brier):
            digits = 1 - math.floor(math.log10(estimate.standard_error))
            assert f"{estimate.value:.{digits}f}" in text
            assert f"±{estimate.standard_error:.{digits}f}" in text
        assert f"{flow.brier_difference[0].value:+.3f}" in line_of(text, "flow", after="──")
        assert line_of(text, "energy", after="──").split()[-2:] == ["-", "-"]

    def test_costs_are_means_over_seeds(self):
        found = samples.result(samples.variant(seeds=(0, 4)), samples.variant("flow"))
        seconds = (81.25 + 85.25) / 2
        assert f" {seconds:.3g} " in line_of(shown(found), "energy", after="costs")
        assert "2.50e13" in line_of(shown(found), "energy", after="costs")

    def test_a_failed_variant_is_a_line_that_says_so(self):
        line = line_of(shown(samples.ten()), "flow-deep")
        assert line.split()[1] == "failed" and set(line.split()[2:]) == {"-"}

    def test_a_comparison_that_failed_as_a_whole_is_still_a_table(self):
        lost = samples.variant(seeds=(), failures=[(0, "out of memory")])
        text = shown(samples.result(lost))
        assert "failed" in text and "energy: failed with seed 0: out of memory" in text

    def test_unigram_is_below_and_without_costs(self):
        text = shown(samples.result())
        scores = ["0.00244", "0.890", "0.0200", "0.0002", "1e-5"]
        assert line_of(text, "unigram").split()[1:6] == scores
        assert "unigram" not in text[text.index("costs") : text.index("higher is better")]

    def test_without_the_training_text_nothing_is_called_held_out(self):
        """And there is no unigram baseline, in the table and in the pictures."""
        text = shown(samples.only_measured(baselines=None, seed=None))
        assert "heads: scores on text" in text and "unigram" not in text
        assert "The text that the model was trained on is unknown" in text
        assert "is unknown" not in shown(samples.only_measured())
        known = samples.only_measured().variants[0]
        unknown = samples.variant("other", baselines=None)
        both = shown(samples.result(known, unknown))
        assert "The text that other was trained on" in both and "unigram" in both

    def test_samplers_that_take_several_draws_have_columns(self):
        plain = shown(samples.result())
        assert "draws/" not in plain and "accuracy" not in plain
        many = samples.variant("flow", quality=1.2, draws_per_chunk=64.0, unsettled=0.25)
        text = shown(samples.result(samples.variant(), many))
        assert line_of(text, "flow", after="costs").split()[-2:] == ["64", "25"]
        assert "accuracy" in text and "Δaccuracy" in text


class TestFiles:
    def test_all_are_written_and_old_ones_replaced(self, tmp_path):
        folder = tmp_path / "a" / "b"
        write_report(Report.of(samples.only_measured()), folder)
        last = dataclasses.replace(samples.only_measured(), name="last")
        files = write_report(Report.of(last), folder)
        assert set(files) == {path for path in folder.rglob("*") if path.is_file()}
        names = {str(file.relative_to(folder)) for file in files}
        assert names == {
            "results.json", "results.csv", "summary.csv", "samples.txt", "report.html",
            "plots/brier.png", "plots/brier.svg", "plots/noise.png", "plots/noise.svg",
        }  # fmt: skip
        assert read_results(folder / "results.json").to_json() == last.to_json()
        assert "<h1>last</h1>" in (folder / "report.html").read_text(encoding="utf-8")

    def test_a_file_is_whole_or_the_old_one(self, tmp_path, monkeypatch):
        write_report(Report.of(samples.only_measured()), tmp_path)
        before = (tmp_path / "results.json").read_bytes()

        def full(descriptor):
            raise OSError("no space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space left"):
            write_report(
                Report.of(dataclasses.replace(samples.only_measured(), name="new")), tmp_path
            )
        assert (tmp_path / "results.json").read_bytes() == before
