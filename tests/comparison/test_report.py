import csv
import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from calmkit.comparison import (
    ComparisonResult,
    HeadResult,
    read_results,
    write_report,
)
from calmkit.comparison.report import notes, to_csv, to_table
from calmkit.metrics import Estimate


def head(name="energy", brier=(2.88, 0.21, 0.03, 0.004), errors=(0.11, 0.04, 0.01, 0.004)):
    scores = tuple(Estimate(*pair) for pair in zip(brier, errors, strict=True))
    product = math.prod(max(value, 0.0) / 100 for value in brier)
    return HeadResult(
        name=name,
        class_path="calmkit.heads.EnergyHead",
        brier_lm=100 * product**0.25,
        brier=scores,
        untrained_brier=(Estimate(-98.2, 0.4), *(Estimate(-99.9, 0.1),) * 3),
        energy_score=Estimate(3.2134, 0.0123),
        untrained_energy_score=Estimate(4.4, 0.02),
        parameters=412_345,
        evaluations_per_sample=1,
        training_seconds=81.234,
        microseconds_per_token=210.3,
        sample_text=f"what {name} wrote,\nin two lines: ä",
        training_losses=((10, 3.5), (20, 2.5)),
        validation_losses=((10, 3.6), (20, 2.7)),
    )


def result(*heads):
    return ComparisonResult(
        heads=heads or (head(), head("flow", brier=(4.12, 0.41, -0.03, 0.0))),
        unigram_brier=(
            Estimate(0.89, 0.03),
            Estimate(0.012, 0.002),
            Estimate(2e-4, 0.0),
            Estimate(1e-5, 0.0),
        ),
        shared_parameters=940_000,
        autoencoder_accuracy=0.99934,
        corpus_name="some text",
        corpus_digest="0123456789abcdef" * 4,
        protocol="128 rows of 64 chunks, 8 draws, errors over 19 documents.",
        seed=3,
        hardware="CPU, 2 threads",
        versions={"python": "3.11"},
    )


def shown(found, width=100):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(to_table(found))
    return console.file.getvalue()


class TestTable:
    def test_fits_100_columns_with_nothing_cut(self):
        text = shown(result(head("a-head-with-a-long-name"), head("flow")))
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text

    def test_shows_each_number_with_its_error(self):
        text = shown(result())
        for piece in ("2.88", "±0.11", "-0.030", "±0.010", "3.213", "±0.012", "412k", "210"):
            assert piece in text
        assert "unigram" in text and "0.890" in text and "99.93 % of held-out" in text
        assert "SHA-256 0123456789ab." in text

    def test_says_why_a_brierlm_is_zero(self):
        assert notes(result())[0] == (
            "flow: BrierLM is 0 because Brier-3 and -4 are not positive."
        )
        one = result(head(brier=(1.0, 1.0, -1.0, 1.0)))
        assert notes(one)[0] == "energy: BrierLM is 0 because Brier-3 is not positive."
        assert not any("BrierLM is 0" in line for line in notes(result(head())))

    def test_a_nan_is_shown_as_missing_and_gets_no_note_of_a_score(self):
        odd = dataclasses.replace(head(), brier_lm=math.nan, energy_score=Estimate(math.nan, 0.0))
        assert "nan" not in shown(result(odd))


class TestJson:
    def test_round_trip(self, tmp_path):
        found = result()
        (tmp_path / "results.json").write_text(found.to_json(), encoding="utf-8")
        assert read_results(tmp_path / "results.json") == found

    def test_is_strict_and_brings_nan_back(self):
        odd = dataclasses.replace(head(), training_seconds=math.nan, brier_lm=math.inf)
        text = result(odd).to_json()

        def refuse(name):
            raise AssertionError(f"{name} is not JSON")

        content = json.loads(text, parse_constant=refuse)
        assert content["schema_version"] == 1
        assert content["heads"][0]["training_seconds"] is None
        again = ComparisonResult.from_json(text).heads[0]
        assert math.isnan(again.training_seconds) and math.isnan(again.brier_lm)
        assert again.brier == odd.brier

    def test_refuses_another_version_and_other_json(self):
        other = json.dumps({**json.loads(result().to_json()), "schema_version": 2})
        with pytest.raises(ValueError, match="schema_version must be 1; got 2"):
            ComparisonResult.from_json(other)
        for text in ("[]", "{", "{}", '{"schema_version": 1, "heads": [{}]}'):
            with pytest.raises(ValueError, match="must be JSON as written by"):
                ComparisonResult.from_json(text)


def test_csv_has_every_head_and_the_baseline_at_full_precision():
    rows = list(csv.DictReader(io.StringIO(to_csv(result()))))
    assert [row["head"] for row in rows] == ["energy", "flow", "unigram"]
    assert float(rows[0]["brier_2_se"]) == 0.04
    assert float(rows[0]["brier_lm"]) == head().brier_lm
    assert float(rows[1]["brier_3"]) == -0.03
    assert float(rows[2]["brier_4"]) == 1e-5 and rows[2]["energy_score"] == ""


class TestFiles:
    def test_all_are_written_and_old_ones_replaced(self, tmp_path):
        folder = tmp_path / "a" / "b"
        write_report(result(), folder)
        files = write_report(result(head("last")), folder)
        names = {file.name for file in files}
        assert names == {"results.json", "results.csv", "results.png", "samples.txt"}
        assert {path.name for path in folder.iterdir()} == names
        text = (folder / "samples.txt").read_text(encoding="utf-8")
        assert text == "=== last ===\nwhat last wrote,\nin two lines: ä\n"

    @pytest.mark.parametrize("count", [1, 6])
    def test_the_picture_is_light_and_shows_every_head(self, tmp_path, count):
        from matplotlib.image import imread

        heads = [
            head(f"head-{index}", brier=(index + 1.0, 0.1, -0.1, 0.0)) for index in range(count)
        ]
        write_report(result(*heads), tmp_path)
        pixels = (imread(tmp_path / "results.png")[..., :3] * 255).round().astype(int)
        assert pixels.shape[1] == 12 * 130
        assert (pixels == 255).all(axis=-1).mean() > 0.85
        # Okabe and Ito's blue and vermilion: the first and the second head's colour.
        codes = pixels @ (65536, 256, 1)
        assert (codes == 0x0072B2).any()
        assert (codes == 0xD55E00).any() == (count > 1)

    def test_a_dark_style_of_the_user_changes_nothing(self, tmp_path):
        import matplotlib

        write_report(result(), tmp_path / "light")
        dark = {"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white"}
        with matplotlib.rc_context(dark):
            write_report(result(), tmp_path / "dark")
            assert matplotlib.rcParams["figure.facecolor"] == "black"
        light, dark = (tmp_path / name / "results.png" for name in ("light", "dark"))
        assert light.read_bytes() == dark.read_bytes()

    def test_losses_that_are_missing_do_not_stop_the_picture(self, tmp_path):
        bare = dataclasses.replace(
            head(), training_losses=(), validation_losses=(), microseconds_per_token=math.nan
        )
        write_report(result(bare), tmp_path)
        assert (tmp_path / "results.png").stat().st_size > 0
