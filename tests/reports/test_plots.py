import dataclasses
import io
import itertools
import re

import pytest
import sample_results as samples

from calmkit.comparison import summarize
from calmkit.reports.lines import lines_of
from calmkit.reports.plots import draw_plots
from calmkit.reports.plots.all_plots import sketches
from calmkit.reports.plots.learning import mean_curve
from calmkit.reports.plots.style import looks, plain_style

ALL = [
    "brier", "differences", "training_flops", "training_time", "sampling_evaluations",
    "sampling_time", "learning_steps", "learning_flops", "learning_time", "losses", "noise",
]  # fmt: skip


def drawn(found):
    return {plot.name: plot for plot in draw_plots(lines_of(found))}


def sketched(found):
    """What would be drawn; much quicker."""
    with plain_style():
        return {sketch.name: sketch for sketch in sketches(lines_of(found))}


def panels(sketch):
    return [axes for axes in sketch.figure.axes if axes.axison]


@pytest.fixture(scope="module")
def two():
    return drawn(samples.result())


def pixels(png):
    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)


def has_color(png, color):
    return bool((pixels(png) @ (65536, 256, 1) == color).any())


def test_looks_differ_in_more_than_colour():
    """With ten variants in grey, and with many in colour."""
    ten = looks(10)
    assert len({look.marker for look in ten}) == 10
    assert len({(look.color, look.marker, str(look.line)) for look in looks(77)}) == 77
    for one, next_one in itertools.pairwise(ten):
        assert one.color != next_one.color and one.line != next_one.line


class TestPictures:
    def test_there_is_one_for_each_question(self, two):
        assert list(two) == ALL

    def test_are_light_and_show_every_variant(self, two):
        for name, plot in two.items():
            found = pixels(plot.png)
            assert (found == 255).all(axis=-1).mean() > 0.8
            if name not in ("differences", "noise"):
                # Okabe and Ito's blue and vermilion, of the first and the second variant.
                assert has_color(plot.png, 0x0072B2) and has_color(plot.png, 0xD55E00)
        # The first is what is compared with.
        assert not has_color(two["differences"].png, 0x0072B2)
        # Both have the same autoencoder.
        assert not has_color(two["noise"].png, 0xD55E00)

    def test_png_and_svg_have_the_size_that_the_page_is_told(self, two):
        for plot in two.values():
            width, height = plot.size
            height_px, width_px = pixels(plot.png).shape[:2]
            assert abs(width_px / width - 200 / 96) < 0.02
            assert abs(height_px / height - 200 / 96) < 0.02
            points = [
                float(x) for x in re.findall(rb'<svg.*?(?:width|height)="([\d.]+)pt"', plot.svg)
            ]
            assert abs(points[0] * 96 / 72 - width) < 1

    def test_svg_has_neither_dates_nor_fonts_nor_links(self, two):
        for plot in two.values():
            text = plot.svg.decode()
            assert "<dc:date>" not in text and "<text" not in text and "font-family" not in text
            links = re.findall(r'(?:href|src)="([^"#][^"]*)"', text)
            assert links == []

    def test_the_same_result_gives_the_same_bytes_whatever_the_users_style(self):
        import matplotlib

        found = samples.only_measured()
        once = drawn(found)
        assert once
        dark = {"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white"}
        with matplotlib.rc_context(
            {**dark, "font.size": 20, "axes.linewidth": 4, "svg.hashsalt": "x"}
        ):
            again = drawn(found)
            assert matplotlib.rcParams["font.size"] == 20
        assert once == again

    def test_a_legend_makes_its_picture_higher_and_takes_nothing_from_the_panels(self):
        names = [f"variant-{i}" for i in range(12)]
        found = samples.result(*(samples.variant(name, validation_losses=()) for name in names))
        heights = []
        for result in (found, samples.result(*found.variants[:2])):
            figure = sketched(result)["learning_flops"].figure
            with plain_style():
                figure.draw_without_rendering()
            panel = figure.axes[0].get_window_extent().height
            heights.append((figure.bbox.height - panel, panel))
        (many, panel_of_many), (few, panel_of_few) = heights
        assert many > few + 0.6 * 0.19 * 4 * 100
        assert panel_of_many > 0.9 * panel_of_few


def test_bars_are_95_per_cent_intervals_around_the_scores():
    found = samples.result()
    energy, flow = summarize(found)
    shown = sketched(found)
    for name, place, axis, estimate in (
        ("brier", 3, 0, energy.brier[3]),
        ("differences", 0, 0, flow.brier_difference[0]),
        ("training_time", 0, 1, energy.brier_lm),
        ("training_time", 1, 1, energy.brier[0]),
    ):
        bar = panels(shown[name])[place].containers[0]
        (ends,) = bar[2][0].get_segments()
        assert ends[:, axis].tolist() == pytest.approx(estimate.interval, rel=1e-9)
        assert bar[0].get_xydata()[0, axis] == estimate.value
        assert "95 % intervals" in shown[name].about


def test_over_rows_bars_are_standard_errors():
    found = samples.result(*(over_rows(samples.variant(name)) for name in ("energy", "flow")))
    score = summarize(found)[0].brier[3]
    sketch = sketched(found)["brier"]
    (ends,) = panels(sketch)[3].containers[0][2][0].get_segments()
    expected = score.value - score.standard_error, score.value + score.standard_error
    assert ends[:, 0].tolist() == pytest.approx(expected, rel=1e-9)
    for name in ("brier", "differences", "training_time"):
        about = sketched(found)[name].about
        assert "bars of one standard error" in about and "95 %" not in about
    mixed = samples.result(samples.variant("energy"), over_rows(samples.variant("flow")))
    assert "if there are too few documents" in sketched(mixed)["brier"].about


def over_rows(variant):
    (run,) = variant.runs
    documents = dataclasses.replace(run.documents, unit="rows")
    return dataclasses.replace(variant, runs=(dataclasses.replace(run, documents=documents),))


def test_samplers_that_choose_are_judged_by_their_choices():
    """Brier-n, of the head's draws, is the same for all of them."""
    many = samples.variant("many", draws_per_chunk=64.0)
    many = dataclasses.replace(many, runs=(chosen_better(many.runs[0]),))
    shown = sketched(samples.result(samples.variant("one"), many))
    one, better = summarize(samples.result(samples.variant("one"), many))
    panel, *others = panels(shown["sampling_time"])
    assert panel.get_ylabel() == "accuracy, %" and len(others) == 2
    heights = [bar[0].get_ydata()[0] for bar in panel.containers]
    assert heights == [one.accuracy.value, better.accuracy.value] and heights[0] < heights[1]
    assert "Highest accuracy: many" in shown["sampling_time"].about
    assert panels(shown["differences"])[0].get_xlabel().startswith("accuracy minus that of one")
    (bar,) = panels(shown["differences"])[0].containers
    assert bar[0].get_xdata()[0] == better.accuracy_difference.value > 0


def chosen_better(run):
    sums = run.documents.sums.clone()
    sums[:, -1] *= 1.5
    return dataclasses.replace(run, documents=dataclasses.replace(run.documents, sums=sums))


class TestWhatIsMissingIsLeftOut:
    def test_a_model_that_was_only_measured(self):
        assert list(sketched(samples.only_measured())) == ["brier", "noise"]

    def test_a_model_that_was_trained_alone(self):
        assert list(sketched(samples.result(samples.variant()))) == [
            "brier", "learning_steps", "learning_flops", "learning_time", "losses", "noise"
        ]  # fmt: skip

    def test_softmax_models_have_no_noise_and_no_evaluations(self):
        kinds = [samples.variant(name, softmax=True) for name in ("small", "large")]
        left_out = {"noise", "sampling_evaluations"}
        assert list(sketched(samples.result(*kinds))) == [
            name for name in ALL if name not in left_out
        ]

    def test_all_failed_is_no_picture(self):
        lost = samples.variant(seeds=(), failures=[(0, "out of memory")])
        assert sketched(samples.result(lost, lost)) == {}

    def test_costs_that_are_not_known(self):
        odd = samples.variant(
            "odd", training_flops=None, training_seconds=None, steps=None, baselines=None,
            validation_losses=(), validation_brier=(), chosen_accuracy=None,
        )  # fmt: skip
        found = sketched(samples.result(samples.variant(), odd))
        assert list(found) == [
            "brier", "differences", "sampling_evaluations", "sampling_time", "learning_steps",
            "learning_flops", "learning_time", "losses", "noise",
        ]  # fmt: skip
        assert "odd" not in found["losses"].about + found["learning_flops"].about
        assert "Grey bars" in found["brier"].about
        bars = [len(panel.lines) for panel in panels(found["brier"])]
        assert set(bars) == {bars[0]}
        alone = sketched(samples.result(odd))["brier"]
        assert "Grey bars" not in alone.about

    def test_brierlm_has_no_panel_where_nobody_has_one(self):
        weak = [
            dataclasses.replace(samples.variant(name), runs=(samples.negative(4),))
            for name in ("energy", "flow")
        ]
        low = sketched(samples.result(*weak))["training_flops"]
        high = sketched(samples.result())["training_flops"]
        assert len(panels(low)) == 1 and len(panels(high)) == 2
        assert "Without a BrierLM: energy and flow" in low.about


class TestLearningCurve:
    def test_is_the_mean_over_seeds_at_the_cost_so_far(self):
        runs = tuple(
            samples.run(
                seed, steps=100, training_flops=1e6 * (seed + 1),
                validation_brier=((50, 1.0 + seed), (100, 2.0 + seed)),
            )
            for seed in (0, 1)
        )  # fmt: skip
        (line,) = lines_of(samples.result(dataclasses.replace(samples.variant(), runs=runs)))
        assert mean_curve(line, lambda run: run.training_flops) == [(0.75e6, 1.5), (1.5e6, 2.5)]

    def test_of_a_head_that_starts_far_off_does_not_hide_the_others(self):
        far = samples.variant("far", validation_brier=((40, -98.0), (200, 1.0), (400, 2.0)))
        near = samples.variant("near", validation_brier=((40, 1.0), (200, 1.5), (400, 2.5)))
        sketch = sketched(samples.result(far, near))["learning_flops"]
        (panel,) = panels(sketch)
        assert panel.get_ylim()[0] == -2.5 and "are cut" in sketch.about

    @pytest.mark.parametrize("lowest", [-1.0, 0.5])
    def test_is_shown_as_a_whole_otherwise(self, lowest):
        near = samples.variant("near", validation_brier=((40, lowest), (200, 1.5), (400, 2.5)))
        sketch = sketched(samples.result(near))["learning_flops"]
        assert panels(sketch)[0].get_ylim()[0] < lowest and "are cut" not in sketch.about

    def test_of_nothing_but_negative_scores_is_shown_as_a_whole(self):
        bad = samples.variant("bad", validation_brier=((40, -98.0), (400, -2.0)))
        sketch = sketched(samples.result(bad))["learning_flops"]
        assert panels(sketch)[0].get_ylim()[0] < -98
