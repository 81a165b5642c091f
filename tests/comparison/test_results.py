import dataclasses
import json
import math

import pytest
import sample_results as samples

from calmkit.comparison import ComparisonResult, read_results
from calmkit.experiments import RunResult


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


class TestComparison:
    @pytest.mark.parametrize("found", [samples.ten(), samples.only_measured()], ids=["10", "1"])
    def test_round_trip(self, tmp_path, found):
        path = tmp_path / "results.json"
        path.write_text(found.to_json(), encoding="utf-8")
        again = read_results(path)
        # NaN is not equal to itself; as JSON it is null.
        assert again.to_json() == found.to_json()
        assert again.variants[0].runs[0].brier == found.variants[0].runs[0].brier
        assert again.variants[0].runs[0].documents == found.variants[0].runs[0].documents
        assert (
            again.seeds == found.seeds
            and again.variants[-1].failures == found.variants[-1].failures
        )

    def test_is_strict_and_brings_nan_back(self):
        odd = dataclasses.replace(
            samples.variant(), runs=(samples.run(training_seconds=math.nan, brier_lm=math.inf),)
        )
        text = samples.result(odd).to_json()
        content = json.loads(text, parse_constant=refuse)
        assert content["schema_version"] == 4
        assert content["variants"][0]["runs"][0]["training_seconds"] is None
        again = ComparisonResult.from_json(text).variants[0].runs[0]
        assert math.isnan(again.training_seconds) and math.isnan(again.brier_lm)

    def test_refuses_another_version_and_other_json(self):
        other = json.dumps({**json.loads(samples.result().to_json()), "schema_version": 2})
        with pytest.raises(ValueError, match="schema_version must be 3 or 4; got 2"):
            ComparisonResult.from_json(other)
        for text in ("[]", "{", "{}", '{"schema_version": 3, "variants": [{}], "seeds": []}'):
            with pytest.raises(ValueError, match="must be JSON as written by"):
                ComparisonResult.from_json(text)


class TestRun:
    def test_round_trip(self):
        run = samples.run(3, softmax=True)
        assert RunResult.from_json(run.to_json()).to_json() == run.to_json()
        plain = samples.run(3)
        again = RunResult.from_json(plain.to_json())
        assert again.noise_curve == plain.noise_curve and again.protocol == plain.protocol

    def test_refuses_other_json(self):
        with pytest.raises(ValueError, match="must be JSON as written by"):
            RunResult.from_json('{"seed": 1}')
