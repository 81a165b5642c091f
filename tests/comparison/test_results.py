"""The file of a comparison's results, of this schema and of earlier ones."""

import dataclasses
import json

import pytest
import sample_results as samples

from calmkit.comparison import ComparisonResult, read_results
from calmkit.evaluation import SampleText, Timing


@pytest.mark.parametrize(
    "found",
    [
        samples.ten(),
        samples.only_measured(),
        samples.only_measured(seed=None, baselines=None),
        samples.tuned(),
    ],
    ids=["10", "1", "without a config", "tuned"],
)
def test_round_trip(tmp_path, found):
    path = tmp_path / "results.json"
    path.write_text(found.to_json(), encoding="utf-8")
    again = read_results(path)
    assert again == found
    assert json.loads(path.read_text())["schema_version"] == 7


def in_schema_6(found):
    """As it was written before times were repeated and text was continued."""
    content = json.loads(found.to_json())
    content["schema_version"] = 6
    for variant in content["variants"]:
        for run in variant["runs"]:
            time = run["microseconds_per_token"]
            run["microseconds_per_token"] = time and time["median"]
            del run["continuations"]
    return content


def as_of_schema_6(found):
    """What is known of it: the differences are repeats, in the first run; no continuations."""
    variants = []
    for variant in found.variants:
        times = [run.microseconds_per_token.median for run in variant.runs]
        runs = [
            dataclasses.replace(run, microseconds_per_token=None, continuations=None)
            for run in variant.runs
        ]
        if times:
            runs[0] = dataclasses.replace(runs[0], microseconds_per_token=Timing.of(times))
        variants.append(dataclasses.replace(variant, runs=tuple(runs)))
    return dataclasses.replace(found, variants=tuple(variants))


def in_schema_5(found):
    """As it was written before tuning."""
    content = in_schema_6(found)
    content["schema_version"] = 5
    del content["remarks"]
    for variant in content["variants"]:
        del variant["trials"]
        for run in variant["runs"]:
            run["sample_text"] = run.pop("samples")[0]["texts"][0]
    return content


def with_one_text(found):
    """What is known of a result of schema 5."""
    found, variants = as_of_schema_6(found), []
    for variant in found.variants:
        runs = tuple(
            dataclasses.replace(
                run,
                samples=(SampleText(name="", temperature=None, texts=run.samples[0].texts[:1]),),
            )
            for run in variant.runs
        )
        variants.append(dataclasses.replace(variant, runs=runs))
    return dataclasses.replace(found, variants=tuple(variants))


def in_schema_4(found):
    """As it was written before: all fields, and unknown numbers with errors of their own."""
    content = in_schema_5(found)
    content["schema_version"] = 4
    unknown = {"value": None, "standard_error": None, "interval": None}
    for variant in content["variants"]:
        for run in variant["runs"]:
            for name in ("energy_score", "cross_entropy"):
                run[name] = run[name] or dict(unknown)
            for name in ("steps", "trained_tokens"):
                run[name] = run[name] or 0
            run["brier_places"] = [run["brier"][0], dict(unknown)]
            run["training_losses"] = [[40, 5.0], [80, 2.5]]
    return content


@pytest.mark.parametrize("found", [samples.ten(), samples.only_measured()], ids=["10", "1"])
def test_schemas_3_and_4_are_read(found):
    content = in_schema_4(found)
    assert ComparisonResult.from_json(json.dumps(content)) == with_one_text(found)
    content["schema_version"] = 3
    for variant in content["variants"]:
        for run in variant["runs"]:
            run["untrained_brier"] = run["brier"]
    assert ComparisonResult.from_json(json.dumps(content)) == with_one_text(found)


@pytest.mark.parametrize("found", [samples.ten(), samples.only_measured()], ids=["10", "1"])
def test_schema_5_is_read(found):
    assert ComparisonResult.from_json(json.dumps(in_schema_5(found))) == with_one_text(found)


@pytest.mark.parametrize("found", [samples.ten(), samples.tuned()], ids=["10", "tuned"])
def test_schema_6_is_read(found):
    assert ComparisonResult.from_json(json.dumps(in_schema_6(found))) == as_of_schema_6(found)


def test_differences_that_were_negative_are_no_times():
    content = in_schema_6(samples.result(samples.variant(seeds=(0, 1, 2, 3))))
    for run, time in zip(content["variants"][0]["runs"], (-31.0, 40.0, 60.0, -1.0), strict=True):
        run["microseconds_per_token"] = time
    (variant,) = ComparisonResult.from_json(json.dumps(content)).variants
    assert [run.microseconds_per_token for run in variant.runs] == [
        Timing(median=50.0, spread=5.0, repeats=2), None, None, None,
    ]  # fmt: skip
    for run in content["variants"][0]["runs"]:
        run["microseconds_per_token"] = -1.0
    (variant,) = ComparisonResult.from_json(json.dumps(content)).variants
    assert all(run.microseconds_per_token is None for run in variant.runs)


def test_a_field_of_an_earlier_schema_is_unknown_in_this_one():
    content = json.loads(samples.result().to_json())
    content["variants"][0]["runs"][0]["brier_places"] = []
    where = r"Extra fields .*: brier_places @ \$\.variants\[0\]\.runs\[0\]"
    with pytest.raises(ValueError, match=where):
        ComparisonResult.from_json(json.dumps(content))


@pytest.mark.parametrize("version", [2, 8, "7", True, None])
def test_another_version_is_refused_by_name(version):
    other = json.dumps({**json.loads(samples.result().to_json()), "schema_version": version})
    with pytest.raises(ValueError, match=f"schema_version must be from 3 to 7; got {version}"):
        ComparisonResult.from_json(other)


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"schema_version": 3, "variants": [{}], "seeds": []}']
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r"must be JSON as written by|schema_version must be"):
        ComparisonResult.from_json(text)


def test_the_place_of_a_wrong_value_is_named():
    wrong = dataclasses.replace(samples.variant(), runs=(samples.run(steps="9"),))
    where = r"expected int, got 9 @ \$\.variants\[0\]\.runs\[0\]\.steps"
    with pytest.raises(ValueError, match=where):
        ComparisonResult.from_json(samples.result(wrong).to_json())
