"""The help of every command and the completion of words, without the libraries of the work."""

import subprocess
import sys

import pytest
import yaml

from calmkit import cli
from calmkit.cli import dispatch
from calmkit.cli.completion import SCRIPT, words
from calmkit.cli.helping import _GROUPS, _MOST_USED, answer, experiment_options
from calmkit.config import parse
from calmkit.manual import preset_names, preset_purpose


def test_help_and_completion_import_no_library_of_the_work():
    """The libraries are what takes seconds; time itself is not tested."""
    program = f"""
import contextlib, io, sys
from calmkit.cli import main
lines = [[command, "--help"] for command in {dispatch._COMMANDS}]
lines += [["train", "-h"], ["compare", "--head.help"], ["train", "--head.help", "FlowHead"]]
lines += [["train", "--backbone.help"], ["completion"], ["completion", "words", "train", "--"]]
with contextlib.redirect_stdout(io.StringIO()) as out:
    codes = [main(line) for line in lines]
assert codes == [0] * len(lines), codes
assert len(out.getvalue()) > 20_000
heavy = "torch numpy scipy lightning_fabric torchmetrics transformers jsonargparse matplotlib"
print(sorted({{*heavy.split()}} & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_most_used_options_come_first_and_none_is_called_required(command):
    text = answer(command, ["--seed", "3", "--help"])
    first = text.partition("most used:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in first.splitlines() if line.startswith("  --")] == [
        "--config",
        *(f"--{name}" for name in _MOST_USED if name in experiment_options(command)),
    ]
    assert len(_MOST_USED) == 9 and "required" not in text
    assert ("--dry_run" in text) == (command == "train")  # a comparison refuses it
    assert len(text.splitlines()) < 200 and max(map(len, text.splitlines())) < 100


@pytest.mark.parametrize("command", ["train", "compare"])
def test_presets_are_listed_with_what_they_are_for(command, capsys):
    assert cli.main([command, "--config.help"]) == 0
    text = capsys.readouterr().out
    entries = text.partition("ones:\n")[2].partition("\n\n")[0].splitlines()
    names = [line.split()[0] for line in entries if line.startswith("  ") and line[2] != " "]
    assert names == preset_names(command)
    assert all(preset_purpose(name)[-1:] in {".", "?", ")"} for name in names)
    assert max(map(len, text.splitlines())) < 100
    assert "--config.help says" in answer(command, ["--help"])


def test_every_key_is_in_one_group():
    grouped = [name for names in _GROUPS.values() for name in names]
    keys = experiment_options("train")
    assert sorted(grouped) == sorted({name.partition(".")[0] for name in keys})
    text = answer("train", ["--help"])
    for name in keys:
        if not name.startswith("autoencoder_training."):
            assert f"\n  --{name} " in text


def test_the_defaults_are_those_of_the_command():
    values = yaml.safe_load(parse([], command="calmkit train").text)
    for name, key in experiment_options("train").items():
        value = values
        for piece in name.split("."):
            value = value[piece]
        if isinstance(value, dict):
            value = value["class_path"].rpartition(".")[2]
        shown = "CSVCurves" if key.option.default == "csv" else key.option.default
        assert yaml.safe_load(shown) == value, name


@pytest.mark.parametrize(
    "given", [["--seed", "3"], ["--help", "head"], ["--optimizer.help"], ["--head.help", "Mine"]]
)
def test_other_questions_are_left_to_the_parser(given):
    assert answer("train", given) is None


def test_the_parts_of_a_key_have_a_line_each(capsys):
    assert cli.main(["train", "--backbone.help"]) == 0
    out = capsys.readouterr().out
    assert "TransformerBackbone (default)" in out and "MinGRUBackbone   " in out
    assert "--backbone.help CLASS lists" in out
    assert cli.main(["train", "--logger.help"]) == 0
    assert "  wandb    " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "some", "others"),
    [
        ([""], ["train", "completion"], ["--head"]),
        (["tra"], ["train"], ["compare"]),
        (["train", "--head", ""], ["FlowHead"], ["Head"]),
        (["train", "--head", "Fl"], ["FlowHead", "FlowMapHead"], ["EnergyHead"]),
        (["train", "--head.help", "Fl"], ["FlowHead"], []),
        (["train", "--config", ""], ["cpu"], ["heads"]),
        (["compare", "--config", ""], ["heads", "cpu"], ["calm-l"]),
        (["compare", "--budget", ""], ["flops"], []),
        (["compare", "--"], ["--variants", "--hidden_size"], []),
        (["train", "--head", "FlowHead", "--head."], ["--head.solver"], ["--head.rule"]),
        (
            ["train", "--head."],
            ["--head.rule", "--head.help"],
            ["--head.cond_size", "--head.latent_size"],
        ),
        (["generate", "--temp"], ["--temperature"], ["--seed"]),
        (["generate", "--json", ""], ["true"], []),
        (["train", "--logger", ""], ["csv", "wandb"], []),
    ],
)
def test_words_are_completed(line, some, others):
    found = words(line, dispatch._COMMANDS)
    assert {*some} <= {*found} and not {*others} & {*found}
    assert all(word.startswith(line[-1]) for word in found)


@pytest.mark.parametrize("line", [["data", ""], ["nothing", "--"], ["train", "--data", "te"]])
def test_file_names_are_left_to_the_shell(line):
    assert words(line, dispatch._COMMANDS) == []


def test_the_script_completes_in_bash():
    calls = f'calmkit() {{ "{sys.executable}" -m calmkit "$@"; }}'
    line = 'COMP_WORDS=(calmkit train --head Fl); COMP_CWORD=3; _calmkit; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{calls}\n{SCRIPT}\n{line}"], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("FlowHead FlowMapHead\n", "")
