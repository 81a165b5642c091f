"""What layers give is kept for configs that begin with them, and nothing else is."""

import itertools

import pytest
import yaml
from train_configs import train

from calmkit.config import parse_comparison, values_of
from calmkit.config.parsing import _experiment_parser
from calmkit.config.yaml_text import text_of

VARIANTS = {
    "energy": {"head": {"init_args": {"width": 24}}},
    "flow": {"head": {"class_path": "FlowHead", "init_args": {"depth": 1}}},
    "short": {"training": {"steps": 30}, "autoencoder": {"init_args": {"width": 16}}},
    "plain": {},
}


def compared(variants, *options):
    given = ["--config=ci", f"--variants={yaml.safe_dump(variants)}"]
    return {one.name: one.text for one in parse_comparison([*given, *options]).variants}


@pytest.mark.parametrize("options", [(), ("--context=32", "--scored_after=8")])
def test_each_variant_is_as_it_is_alone(options):
    together = compared(VARIANTS, *options)
    assert len(set(together.values())) == 4
    for name, overrides in VARIANTS.items():
        assert compared({name: overrides}, *options) == {name: together[name]}


def test_one_config_leaves_nothing_to_the_next():
    before = train().text
    train("--head=FlowHead", "--evaluation.draws=3", "--backbone.heads=1")
    assert train().text == before


def test_presets_are_kept_with_those_beneath_them():
    orders = [("books",), ("gpu", "books"), ("books", "gpu"), ("gpu",)]
    given = [[word for name in names for word in ("--config", name)] for names in orders]
    kept, fresh = [train(*options).text for options in given], []
    for options in given:
        _experiment_parser("calmkit train")[1]._of_presets.clear()
        fresh.append(train(*options).text)
    assert kept == fresh


def test_files_are_not_kept(tmp_path):
    """A process that reads many configs would keep them all."""
    (tmp_path / "my.yaml").write_text("head: {init_args: {width: 24}}")
    train("--config", str(tmp_path / "my.yaml"), "--config=gpu")
    option = _experiment_parser("calmkit train")[1]
    assert option.presets.issuperset(itertools.chain(*option._of_presets))


def test_layers_are_shared_no_longer_than_asked():
    compared(VARIANTS)
    assert _experiment_parser("calmkit compare")[1]._shared is None


def test_text_is_read_as_what_was_written():
    values = {"b": 1, "a": {"list": [1.5e-5, None, True], "text": "Größe 😀: \n"}, "é": ""}
    got = values_of(text_of(values))
    assert got == values and next(iter(got)) == "b"


def test_names_of_files_need_not_be_utf_8():
    assert text_of({"data": "\udcff.txt"}) == 'data: "\\uDCFF.txt"\n'
