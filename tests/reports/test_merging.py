import dataclasses

import pytest
import sample_results as samples
import yaml

from calmkit.comparison import summarize
from calmkit.reports import Report
from calmkit.reports.merging import merge, report_folders


def names(result):
    return [variant.name for variant in result.variants]


ENERGY, FLOW = samples.variant("energy"), samples.variant("flow", quality=1.3)


class TestMerge:
    def test_variants_follow_in_the_order_of_the_runs(self):
        both = merge([samples.result(FLOW), samples.result(ENERGY)], ["a", "b"])
        assert names(both) == ["flow", "energy"]
        assert both.name == "a, b"
        assert both.corpus_name == "some text" and both.hardware == samples.result().hardware

    def test_remarks_of_all_stand_once(self):
        one = samples.result(ENERGY, remarks=("Tuning: 3 trials.", "softmax: FLOPs."))
        two = samples.result(FLOW, remarks=("softmax: FLOPs.", "Tuning: 4 trials."))
        want = ("Tuning: 3 trials.", "softmax: FLOPs.", "Tuning: 4 trials.")
        assert merge([one, two], ["a", "b"]).remarks == want

    def test_only_names_that_clash_get_the_runs_name(self):
        both = merge([samples.result(ENERGY, FLOW), samples.result(FLOW)], ["a", "b"])
        assert names(both) == ["energy", "a-flow", "b-flow"]

    def test_names_that_clash_even_so_get_a_number(self):
        runs = [samples.result(FLOW, samples.variant("b-flow")), samples.result(FLOW)]
        assert names(merge(runs, ["a", "b"])) == ["a-flow", "b-flow", "b-flow-2"]

    def test_differences_on_the_same_text_are_those_of_one_comparison(self):
        apart = merge([samples.result(ENERGY), samples.result(FLOW)], ["a", "b"])
        together = samples.result(ENERGY, FLOW)
        one, other = summarize(apart)[1], summarize(together)[1]
        assert one.brier_difference == other.brier_difference
        assert one.brier_lm_difference == other.brier_lm_difference

    def test_another_text_is_named_and_there_is_no_difference(self):
        elsewhere = samples.result(FLOW, corpus_name="other text", corpus_digest="f" * 64)
        both = merge([samples.result(ENERGY), elsewhere], ["a", "b"])
        energy, flow = summarize(both)
        assert energy.brier != flow.brier and flow.brier_difference == ()
        lines = Report.of(both).notes
        assert (
            "flow: no Δ, since it has no two evaluated documents in common with energy." in lines
        )
        assert "Text: some text, SHA-256 0123456789ab; other text, SHA-256 ffffffffffff." in lines

    @pytest.mark.parametrize("key", ["evaluation_seed", "validation_fraction", "evaluation_data"])
    def test_another_held_out_part_of_the_same_text_is_another_text(self, key):
        config = {"evaluation_seed": 0, "validation_fraction": 0.1, "evaluation_data": None}
        one, other = (
            samples.result(variant, config=yaml.safe_dump(config | change))
            for variant, change in ((ENERGY, {}), (FLOW, {key: 0.2}))
        )
        same = samples.result(FLOW, config=one.config)
        assert summarize(merge([one, same], ["a", "b"]))[1].brier_difference != ()
        assert summarize(merge([one, other], ["a", "b"]))[1].brier_difference == ()

    def test_a_merged_report_can_be_merged_again(self):
        """The documents of the second text and of the third have different numbers."""
        texts = [
            samples.result(samples.variant(name), corpus_digest=digit * 64)
            for name, digit in (("a", "a"), ("b", "b"), ("c", "c"))
        ]
        last = merge([merge(texts[:2], ["a", "b"]), texts[2]], ["ab", "c"])
        groups = [set(variant.runs[0].documents.groups) for variant in last.variants]
        assert len(set.union(*groups)) == sum(map(len, groups))

    def test_budgets_machines_seeds_and_protocols_of_both_are_kept(self):
        other = samples.result(
            samples.variant("flow", seeds=(3,), protocol="Fewer rows."), seeds=(3,),
            budget="seconds", hardware="a GPU", versions={"python": "3.12"},
        )  # fmt: skip
        both = merge([samples.result(ENERGY, seeds=(0, 1)), other], ["a", "b"])
        assert both.seeds == (0, 1, 3)
        assert both.versions == {"python": "3.11; 3.12", "torch": "2.13"}
        lines = Report.of(both).notes
        assert "Budget: equal training steps; equal training time." in lines
        assert {"Seeds of energy: 0.", "Seeds of flow: 3."} < set(lines)
        assert "Hardware: x86_64 CPU, 2 of 2 threads; a GPU." in lines
        assert "Protocol of flow: Fewer rows." in lines

    def test_configs_of_both_are_kept_as_yaml_documents(self):
        both = merge([samples.result(ENERGY), samples.result(FLOW, config="a: 1")], ["x", "y"])
        first, second, *_ = yaml.safe_load_all(both.config)
        assert first["budget"] == "steps" and second == {"a": 1}
        assert both.config.startswith("# x\n") and "# y\n" in both.config

    def test_a_single_result_stays_as_it_is(self):
        found = samples.result()
        assert merge([found], ["a"]) is found

    @pytest.mark.parametrize("called", [[], ["a"], ["a", "a"], ["a", "b", "c"]])
    def test_names_must_be_one_for_each_and_different(self, called):
        with pytest.raises(ValueError, match="names must be different, one for each"):
            merge([samples.result(), samples.result()], called)
        with pytest.raises(ValueError, match="at least one result"):
            merge([], [])


class TestFolders:
    def write(self, folder, found):
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(found.to_json(), encoding="utf-8")
        return folder

    def test_report_of_several(self, tmp_path, monkeypatch):
        monkeypatch.setattr("calmkit.reports.plots.all_plots._DRAWS", ())
        bare = dataclasses.replace(FLOW, runs=samples.only_measured().variants[0].runs)
        folders = [
            self.write(tmp_path / "monday" / "run", samples.result(ENERGY, FLOW)),
            self.write(tmp_path / "tuesday" / "run", samples.result(bare)),
        ]
        report, files = report_folders(folders, tmp_path / "both")
        assert names(report.result) == ["energy", "monday-run-flow", "tuesday-run-flow"]
        assert all(file.is_file() and tmp_path / "both" in file.parents for file in files)
        page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
        assert "tuesday-run-flow" in page

    def test_what_cannot_be_read_is_named(self, tmp_path):
        good = self.write(tmp_path / "good", samples.result())
        with pytest.raises(ValueError, match="at least one folder"):
            report_folders([], tmp_path)
        with pytest.raises(ValueError, match="directories must be different"):
            report_folders([good, good / ".." / "good"], tmp_path)
        with pytest.raises(
            ValueError, match=r"each hold a results\.json.*missing does not: No such"
        ):
            report_folders([good, tmp_path / "missing"], tmp_path)
        with pytest.raises(ValueError, match="output must not be one of the input"):
            report_folders([good], good)
        bad = self.write(tmp_path / "bad", samples.result())
        (bad / "results.json").write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match=r"bad.results\.json: results must be JSON"):
            report_folders([good, bad], tmp_path)
