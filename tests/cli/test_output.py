"""A folder for results is one command's at a time."""

import os

import pytest

from calmkit import cli
from calmkit.locks import only_one_in


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--config", "ci"],
        ["train", "--vocab_size", "300"],
        ["evaluate", "--checkpoint", "model"],
    ],
    ids=lambda command: command[0],
)
def test_a_folder_in_use_is_refused_and_its_process_named(run, trained, capsys, tmp_path, command):
    with only_one_in(tmp_path / "out", name="output"):
        assert cli.main([*command, "--output", "out"]) == 2
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    err = capsys.readouterr().err
    assert err.startswith(f"calmkit {command[0]}: output must be a folder that no other run")
    assert f"out is in use by process {os.getpid()} on " in err and len(err.splitlines()) == 1
    assert run.calls == []


def test_report_too(run, tmp_path, capsys):
    with only_one_in(tmp_path / "out", name="output"):
        assert cli.main(["report", "a", "b", "--output", "out"]) == 2
    assert "out is in use by process" in capsys.readouterr().err
