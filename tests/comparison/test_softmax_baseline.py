"""The softmax model beside the variants: what it takes from the first, and what may be changed."""

import types
from dataclasses import replace

import pytest

from calmkit.comparison.comparing import _remarks
from calmkit.comparison.softmax_baseline import is_softmax, with_softmax
from calmkit.config import ConfigError, parse_comparison, parse_text

VARIANTS = "{four: {chunk_size: 4, positions: 8, hidden_size: 48}, two: {}}"


def compared(*options):
    start = ["--config=ci", "--variants", VARIANTS, "--evaluation.min_context=3"]
    return with_softmax(parse_comparison([*start, *options]))


def test_it_has_the_backbone_and_the_text_of_the_first_variant():
    four, two, softmax = compared("--softmax=true").variants
    assert (four.name, two.name, softmax.name) == ("four", "two", "softmax")
    found = softmax.experiment
    assert (found.model, found.chunk_size, found.hidden_size) == ("token_lm", 1, 48)
    assert (found.positions, found.evaluation.min_context) == (4 * 8, 4 * 3)
    assert parse_text(softmax.text).text == softmax.text


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_it_is_said_to_draw_chunks_where_a_variant_has_some(chunk_size):
    comparison = compared("--softmax=true", f"--variants.four.chunk_size={chunk_size}")
    comparison = replace(comparison, variants=(comparison.variants[0], comparison.variants[2]))
    (remark,) = _remarks(types.SimpleNamespace(comparison=comparison, tuning=""))
    assert ("it draws chunks" in remark) == (chunk_size > 1)


@pytest.mark.parametrize("options", [[], ["--softmax=false"], ["--softmax=null"]])
def test_without_the_key_nothing_is_added(options):
    found = compared(*options)
    assert [variant.name for variant in found.variants] == ["four", "two"]
    assert not is_softmax(found, "softmax")


def test_its_keys_are_laid_over_those_of_the_first_variant():
    found = compared("--softmax", "{optimizer: {init_args: {lr: 0.5}}}")
    four, _, softmax = found.variants
    assert "lr: 0.5" in softmax.text and "lr: 0.5" not in four.text
    assert is_softmax(found, "softmax") and is_softmax(found, "softmax/lr-0.1")
    assert not is_softmax(found, "softmax-2") and not is_softmax(found, "four")


def test_the_effective_config_gives_it_again(tmp_path):
    found = compared("--softmax", "{optimizer: {init_args: {lr: 0.5}}}")
    file = tmp_path / "config.yaml"
    file.write_text(found.text)
    again = with_softmax(parse_comparison([f"--config={file}"]))
    assert [v.text for v in again.variants] == [v.text for v in found.variants]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--softmax=0"], "softmax must be keys and values; got 0"),
        (["--softmax", "{chunk_size: 2}"], "softmax must not set chunk_size, which follows"),
        (["--softmax", "{sead: 2}"], "sead is not a known key"),
        (["--softmax=true", "--variants", "{softmax: {}}"], "variants must not contain 'softmax'"),
    ],
)
def test_wrong_keys_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        compared(*options)
