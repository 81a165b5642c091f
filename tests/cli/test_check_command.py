"""`calmkit check`: a table or JSON, and an exit code, for parts of one's own."""

import json
import sys

import pytest

from calmkit import cli

PARTS = """
from calmkit.scoring import EnergyScore


class Good(EnergyScore):
    pass


class Wrong(EnergyScore):
    def spread(self, samples):
        return 1.5 * super().spread(samples)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    # As the command `calmkit` begins, which finds installed modules only.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "rules_of_mine", raising=False)
    (tmp_path / "rules_of_mine.py").write_text(PARTS)


def check(*arguments):
    return cli.main(["check", *arguments, "--profile", "quick"])


def test_a_right_part(capsys):
    assert check("rules_of_mine.Good", "--only", "dtype_is_kept,proper_on_finite_supports") == 0
    out = capsys.readouterr().out
    assert out.startswith("Good, a rule, profile quick, seed 0: 2 passed")


def test_a_wrong_part_of_a_module(capsys):
    assert check("rules_of_mine", "--only", "proper_on_finite_supports", "--seed", "2") == 1
    out = capsys.readouterr().out
    assert "Good, a rule" in out and "scores better than it by" in out
    assert (
        "calmkit check rules_of_mine.Wrong --only proper_on_finite_supports --profile quick "
        "--seed 2" in out
    )


def test_json_and_an_exemption(capsys):
    options = ["--only", "dtype_is_kept,proper_on_finite_supports", "--json"]
    exempt = ["--exempt.proper_on_finite_supports", "an experiment"]
    assert check("rules_of_mine.Wrong", *options, *exempt) == 0
    report = json.loads(capsys.readouterr().out)["rules_of_mine.Wrong"]
    assert report["passed"]
    assert [result["status"] for result in report["results"]] == ["passed", "exempt"]


def test_arguments_reach_the_constructor(capsys):
    options = ["--only", "dtype_is_kept"]
    assert check("rules_of_mine.Wrong", "--arguments.alpha", "0.5", *options) == 0
    assert capsys.readouterr().out.startswith("partial(Wrong, alpha=0.5), a rule")
    options = ["--arguments.alpha", "0.5", "--only", "proper_on_finite_supports"]
    assert check("rules_of_mine.Wrong", *options) == 1
    out = capsys.readouterr().out
    assert 'check_part("rule", partial(Wrong, alpha=0.5), only=' in out
    assert "calmkit check rules_of_mine.Wrong --arguments.alpha 0.5 --only" in out


def test_a_terminal_shows_the_contract_that_is_checked(monkeypatch, capsys):
    options = ["rules_of_mine.Good", "--only", "dtype_is_kept,proper_on_finite_supports"]
    assert check(*options) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert check(*options) == 0
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown == ["", "1 of 2: dtype_is_kept", "2 of 2: proper_on_finite_supports", ""]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.Rule"], "there is no module nowhere"),
        (
            ["Good"],
            "there is no module Good here, nor one that is installed. Write rules_of_mine.Good,",
        ),
        (["--seed", "1"], "path must come first"),
        (["rules_of_mine.Good", "--kind", "hat"], "kind must be one of"),
        (["rules_of_mine.Good", "--profle", "deep"], "did you mean: profile"),
        (["rules_of_mine.Sparse"], "It defines Good, Wrong."),
        (["rules_of_mine.Good", "--only", "dtype_is_keept"], "Did you mean dtype_is_kept?"),
        (["rules_of_mine.Good", "--arguments.alhpa", "1"], "Did you mean alpha? There are: alpha"),
    ],
)
def test_mistakes_are_named(arguments, words, capsys):
    assert cli.main(["check", *arguments]) == 2
    assert words in capsys.readouterr().err
