"""What source files say is what the imported classes say."""

import pytest
import torch

from calmkit import autoencoders, backbones, heads, sampling, scoring
from calmkit.config import ConfigError, TrainExperiment, parse, parse_comparison
from calmkit.config.comparison import _DEFAULTS
from calmkit.manual import (
    COMPARISON_OPTIONS,
    find,
    one_line,
    options_of,
    part_classes,
    preset_defaults,
    preset_names,
)
from calmkit.schema.classes import arguments_of, known_classes


def parts():
    bases = (
        heads.Head, backbones.Backbone, autoencoders.ChunkAutoencoder, scoring.ScoringRule,
        scoring.Kernel, heads.Solver, heads.Prediction, sampling.Sampler,
    )  # fmt: skip
    return [(base, find(base.__module__, base.__name__)) for base in bases]


@pytest.mark.parametrize(("base", "found"), parts(), ids=lambda one: getattr(one, "__name__", ""))
def test_the_parts_are_those_that_a_config_may_name(base, found):
    package = base.__module__.rpartition(".")[0]
    listed = part_classes(found)
    names = {name.rpartition(".")[2] for name in known_classes(base)}
    handed_on = vars(__import__(package, fromlist=["_"]))
    assert set(listed) == {name for name in names if handed_on.get(name) is not None}
    assert len(listed) > 2 and all(one_line(one) for one in listed.values())


@pytest.mark.parametrize(
    "made",
    [
        TrainExperiment, torch.optim.AdamW, backbones.HuggingFaceBackbone,
        *(vars(heads)[name] for name in known_classes(heads.Head) if name in vars(heads)),
        *(vars(scoring)[name] for name in known_classes(scoring.ScoringRule)
          if name in vars(scoring)),
    ],
)  # fmt: skip
def test_the_options_are_the_arguments(made):
    options = options_of(find(made.__module__, made.__name__))
    arguments = arguments_of(made)
    assert [option.name for option in options] == list(arguments)
    for option in options:
        required = arguments[option.name].required
        # A default made by a factory counts as one.
        assert (option.default is None) == required or option.default == "see below"
        if made.__module__.startswith("calmkit."):
            assert option.text


def test_a_subclass_elsewhere_adds_the_arguments_of_its_base(tmp_path, monkeypatch):
    (tmp_path / "my_solver.py").write_text(
        "from calmkit.heads import EulerSolver as Euler\n"
        "class Mine(Euler):\n"
        '    """One line.\n\n    More.\n    """\n'
        "    def __init__(self, twice: bool | None = None, **rest) -> None:\n"
        '        """Make it.\n\n        Args:\n            twice: Whether\n'
        '                to repeat.\n        """\n'
        "        super().__init__(**rest)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find("my_solver", "Mine") is None  # it is not imported
    __import__("my_solver")
    found = find("my_solver", "Mine")
    twice, *others = options_of(found)
    assert (twice.name, twice.kind, twice.default) == ("twice", "{true,false}", "null")
    assert twice.text == "Whether to repeat." and one_line(found) == "One line."
    assert [one.name for one in others] == ["steps"]


def test_the_keys_of_a_comparison_are_all_listed():
    assert [option.name for option in COMPARISON_OPTIONS] == list(_DEFAULTS)


def taken(command, name):
    """Whether a command takes a preset, here with a single variant."""
    options = ["--config", name]
    try:
        if command == "train":
            parse(options, command="calmkit train")
        else:
            parse_comparison([*options, "--variants={one: {}}", "--grid={}"])
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, name) for command in ("train", "compare") for name in preset_names()
     if name not in preset_names(command)],
)  # fmt: skip
def test_a_command_refuses_the_presets_that_it_does_not_list(command, name):
    assert not taken(command, name)


@pytest.mark.parametrize(
    ("command", "name"),
    [("train", name) for name in preset_names("train")]
    # The others have variants of their own, which tests/config parses.
    + [("compare", name) for name in preset_names("compare") if name in preset_names("train")],
)
def test_a_command_takes_the_presets_that_it_lists(command, name):
    assert taken(command, name)


def test_later_presets_replace_values_of_earlier_ones():
    values = preset_defaults("base", "cpu")
    assert (values["training.steps"], values["training.batch_size"]) == ("500", "8")
    assert (values["backbone"], values["backbone.depth"]) == ("TransformerBackbone", "2")
    assert preset_defaults("base", "finetune")["finetune"] == "null"
