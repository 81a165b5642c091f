import dataclasses

import pytest
import sample_results as samples
import torch

from calmkit.evaluation import Timing
from calmkit.reports import Report
from calmkit.reports.lines import listed


def lines_of(result):
    return list(Report.of(result).notes)


def told(*variants, **changes):
    return lines_of(samples.result(*variants, **changes))


class TestWhatSurprises:
    @pytest.mark.parametrize(
        ("orders", "words"),
        [((3,), "-3 is"), ((3, 4), "-3 and -4 are"), ((1, 2, 4), "-1, -2 and -4 are")],
    )
    def test_says_why_a_brierlm_is_zero(self, orders, words):
        run = samples.run()
        sums = run.documents.sums.clone()
        sums[:, [n - 1 for n in orders]] *= -1
        low = dataclasses.replace(run, documents=dataclasses.replace(run.documents, sums=sums))
        lines = told(dataclasses.replace(samples.variant(), runs=(low,)), samples.variant("flow"))
        assert lines[0] == f"energy: BrierLM is 0 because Brier{words} not positive."
        assert not any(line.startswith("flow:") for line in lines)

    @pytest.mark.parametrize(("collision", "hit", "alarm"), [
        (1.0, 0.1, True), (1.0, 1.0, False), (0.999, 0.1, False)
    ])  # fmt: skip
    def test_identical_draws_raise_an_alarm(self, collision, hit, alarm):
        run = samples.run()
        known = {"hit_1": hit, "collision_1": collision, "collision_2": collision}
        documents = dataclasses.replace(
            run.documents,
            names=(*run.documents.names, *known),
            sums=torch.cat([run.documents.sums, *(
                rate * run.documents.counts[:, :1] for rate in known.values()
            )], dim=1),
            counts=torch.cat([run.documents.counts, run.documents.counts[:, :3]], dim=1),
        )  # fmt: skip
        one = dataclasses.replace(samples.variant(), runs=(dataclasses.replace(
            run, documents=documents),))  # fmt: skip
        lines = told(one, samples.variant("flow"))
        words = "energy: ALARM: all draws are equal and not the text"
        assert lines[0].startswith(words) == alarm
        assert not any(line.startswith("flow:") for line in lines)

    def test_names_failures_with_seeds_and_reason(self):
        failures = [(0, "out of memory"), (1, "loss is nan\nat step 17"), (2, "out of memory")]
        lines = told(samples.variant(), samples.variant("flow", failures=failures))
        assert lines[:2] == [
            "flow: failed with seeds 0 and 2: out of memory",
            "flow: failed with seed 1: loss is nan at step 17",
        ]


class TestWhatTheNumbersMean:
    def test_says_how_values_were_tuned_and_what_each_variant_got(self):
        lines = lines_of(samples.tuned())
        first = lines.index("Tuning: 3 trials of each variant.")
        assert lines[first + 1 : first + 4] == [
            "softmax: the FLOPs.",
            "energy, tuned: optimizer.lr = 0.001 (1.52 ±0.25); optimizer.lr = 0.003 (2.61 ±0.25, "
            "chosen); optimizer.lr = 0.1 (failed).",
            "flow, tuned: optimizer.lr = 0.001 (3.02 ±0.25, chosen); optimizer.lr = 0.003 (2.93 "
            "±0.25); optimizer.lr = 0.1 (2.81 ±0.25).",
        ]
        assert not any("uned" in line or "Tuning" in line for line in told())

    def test_the_error_covers_seeds_only_where_there_are_several(self):
        three = samples.result(seeds=(0, 1, 2))
        assert "±: standard error over resampled text and over 3 seeds of training." in lines_of(
            three
        )
        of_rows = "±: standard error over resampled text and over the row's seeds of training."
        assert of_rows in lines_of(samples.ten())
        assert any("one seed it says nothing about training" in line for line in told())

    def test_says_whose_errors_are_over_rows(self):
        run = samples.run()
        rows = dataclasses.replace(run.documents, unit="rows")
        few = dataclasses.replace(
            samples.variant("flow"), runs=(dataclasses.replace(run, documents=rows),)
        )
        assert any(line.startswith("flow: fewer than 8") for line in told(samples.variant(), few))
        assert any(line.startswith("fewer than 8 held-out doc") for line in told(few))
        assert not any("fewer than 8" in line for line in told())

    @pytest.mark.parametrize(
        ("budget", "words"), [("steps", "steps"), ("flops", "FLOPs"), ("seconds", "time")]
    )
    def test_states_budget_and_seeds(self, budget, words):
        assert f"Budget: equal training {words}." in told(budget=budget)
        assert "Seeds: 0." in told(budget=budget)

    def test_every_row_has_the_seeds_of_its_own_runs(self):
        lines = lines_of(samples.ten())
        assert "Seeds of meanflow: 0-1." in lines
        (others,) = (one for one in lines if one.startswith("Seeds of energy"))
        assert others.endswith(": 0-2.") and not any(one.startswith("Seeds: ") for one in lines)
        assert "meanflow: Δ over what both have: 2 seeds (0-1) and 20 documents." in lines
        assert not any("what both have" in one for one in told())
        apart = told(samples.variant(), samples.variant("flow", seeds=(3, 4)))
        assert "flow: no Δ, since it has no seed in common with energy." in apart

    def test_says_how_times_were_measured(self):
        known = "µs/token: median of 5 repeats ± half the distance between their quartiles."
        assert known in told()
        once = samples.variant(microseconds_per_token=Timing.of([3.0]))
        assert not any("µs" in line for line in told(once))

    def test_says_what_differences_are_to(self):
        assert "Δ: difference to energy, on the same documents and seeds." in told()
        assert not any(
            "Δ" in line or "Budget" in line for line in lines_of(samples.only_measured())
        )

    def test_rows_that_are_not_the_same_have_no_difference(self):
        one, other = (
            dataclasses.replace(
                samples.run(), documents=dataclasses.replace(samples.run().documents, **changes)
            )
            for changes in ({"unit": "rows"}, {"unit": "rows", "groups": tuple(range(100, 120))})
        )
        energy, flow = (
            dataclasses.replace(samples.variant(name), runs=(run,))
            for name, run in (("energy", one), ("flow", other))
        )
        words = "flow: no Δ, since its evaluated rows are not those of energy."
        assert words in told(energy, flow)
        assert words not in told(energy, dataclasses.replace(flow, runs=(one,)))

    def test_facts_are_told_once_or_for_each_group(self):
        assert "Autoencoder: 99.93 % of held-out tokens restored." in told()
        coarse = samples.variant("coarse", autoencoder_accuracy=0.5, protocol="Another one.")
        lines = told(samples.variant(), coarse, samples.variant("flow"))
        assert "Autoencoder of energy and flow: 99.93 % of held-out tokens restored." in lines
        assert any(line.startswith("Continued: 128 rows by up to 32 tokens") for line in lines)
        assert "Autoencoder of coarse: 50.00 % of held-out tokens restored." in lines
        assert "Protocol of coarse: Another one." in lines

    def test_names_text_and_hardware(self):
        assert told()[-2:] == [
            "Text: some text, SHA-256 0123456789ab.",
            "Hardware: x86_64 CPU, 2 of 2 threads.",
        ]
        both = told(corpus_name="one; two", corpus_digest="a" * 64 + "; " + "b" * 64)
        assert "Text: one, SHA-256 aaaaaaaaaaaa; two, SHA-256 bbbbbbbbbbbb." in both


def test_long_lists_are_cut_with_their_number():
    assert [listed(list("abcdefgh"[:n])) for n in (0, 1, 2, 3)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert listed(list("abcdefgh"), most=4) == "a, b, c and 5 more"
