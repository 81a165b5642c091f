"""A prepared text brings the number of token ids along; a mixture is read with its texts."""

from pathlib import Path

import numpy as np
import pytest
from prepared_folders import write_prepared

from calmkit.config import ConfigError, parse, parse_comparison, parse_text
from calmkit.config.experiment import WeightedText
from calmkit.config.model_config import FOR_EVALUATION, read_model_config
from calmkit.saving import SavedModelError


def parsed(*options):
    return parse(list(options), command="calmkit train")


@pytest.fixture
def folder(tmp_path):
    documents = [np.arange(9)]
    return write_prepared(
        tmp_path / "text", train=documents, validation=documents, shard_tokens=8, vocab_size=777
    )


def test_it_is_that_of_the_tokenizer_unless_the_user_says_another(folder, tmp_path):
    assert parsed().experiment.vocab_size == 512  # the preset's
    got = parsed("--data", str(folder))
    assert got.experiment.vocab_size == 777
    # The effective config states it, so that it is the same experiment without the folder.
    assert "vocab_size: 777" in got.text
    assert parse_text(got.text).text == got.text
    assert parsed("--data", str(folder), "--vocab_size", "300").experiment.vocab_size == 300
    (tmp_path / "c.yaml").write_text("vocab_size: 400")
    got = parsed("--config", str(tmp_path / "c.yaml"), "--data", str(folder))
    assert got.experiment.vocab_size == 400
    (tmp_path / "d.yaml").write_text(f"data: {folder}")
    assert parsed("--config", str(tmp_path / "d.yaml")).experiment.vocab_size == 777
    # Other presets state it for text of their own.
    assert parsed("--config", "gpu", "--data", str(folder)).experiment.vocab_size == 777
    assert parsed("--config", "gpu").experiment.vocab_size == 8192


def test_it_is_that_of_a_mixture_and_of_every_variant(folder):
    given = f"{{a: {{path: {folder}, weight: 0.7}}, b: {{path: nowhere, weight: 0.3}}}}"
    got = parsed("--data", given)
    assert got.experiment.vocab_size == 777
    assert got.experiment.data == {
        "a": WeightedText(folder, 0.7),
        "b": WeightedText(Path("nowhere").absolute(), 0.3),
    }
    assert list(got.experiment.data) == ["a", "b"]
    assert parse_text(got.text).experiment.data == got.experiment.data
    comparison = parse_comparison([f"--data={folder}"])
    assert {one.experiment.vocab_size for one in comparison.variants} == {777}


def test_a_damaged_folder_is_told_as_a_mistake(folder):
    (folder / "train-00000.bin").unlink()
    with pytest.raises(ConfigError, match=r"data: .*train-00000\.bin must have 16 bytes"):
        parsed("--data", str(folder))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}", "data must name at least one; got none"),
        ("{web: {path: a}}", r"data\.web must have weight \(command line\)"),
        ("{web: {}}", r"data\.web must have path and weight"),
        ("{web: 3}", r"data\.web must be keys and values; got 3"),
        ("{web: {path: a, weight: x}}", r"data\.web\.weight must be a number; got 'x'"),
        ("{web: {path: 3, weight: 1}}", r"data\.web\.path must be a path; got 3"),
        ("{web: {path: a, wieght: 1}}", r"data\.web\.wieght is not a known key"),
        ("{web: {path: a, weight: 0}}", "weight must be a finite number above 0; got 0"),
    ],
)
def test_wrong_mixtures_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        parsed("--data", given)


def test_one_weight_may_be_set_alone(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data: {a: {path: x, weight: 1}, b: {path: y, weight: 1}}")
    got = parsed("--config", str(file), "--data.b.weight", "3").experiment.data
    assert [text.weight for text in got.values()] == [1, 3]


@pytest.mark.parametrize(
    "wrong",
    ["{a: {path: x}}", "{a: {path: [x], weight: 1}}", "{a.b: {path: x, weight: 1}}", "[x]"],
)
def test_of_a_models_config_a_mixture_is_plain(tmp_path, wrong):
    file = tmp_path / "config.yaml"
    file.write_text("data: {a: {path: /x y/$z, weight: 0.5}}")
    assert read_model_config(file, keys=FOR_EVALUATION).values["data"]["a"]["weight"] == 0.5
    file.write_text(f"data: {wrong}")
    with pytest.raises(SavedModelError, match="data must be the path of a text"):
        read_model_config(file, keys=FOR_EVALUATION)
