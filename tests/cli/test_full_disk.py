"""A disk that is full, or a file that may not grow, is told in one line; old files stay whole."""

import json
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from sample_results import result, variant

from calmkit import cli
from calmkit.reports import Report, write_report


@contextmanager
def files_of_at_most(size):
    """A limit of the system for this process, in place of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def full(capsys, *command):
    with files_of_at_most(30_000):
        code = cli.main(list(command))
    err = capsys.readouterr().err
    assert code == 1 and len(err.splitlines()) == 1
    assert err.startswith(f"calmkit {command[0]}: ")
    assert " could not be written: File too large. Free some space" in err
    return err


@pytest.mark.parametrize("way", ["to the published format", "to calmkit's"])
def test_convert(run, bare, capsys, way):
    if way == "to calmkit's":
        assert cli.main(["convert", "--checkpoint", "bare", "--output", "published"]) == 0
    source = "bare" if way == "to the published format" else "published"
    before = content(".")
    full(capsys, "convert", "--checkpoint", source, "--output", "other")
    assert content(".") == before and not list(Path().glob(".partial*"))


def test_report(run, capsys, monkeypatch):
    for name in ("a", "b", "joint"):
        write_report(Report.of(result(variant())), Path(name))
    before = content(".")
    assert len((Path("a") / "results.json").read_bytes()) < 30_000
    monkeypatch.setattr("calmkit.reports.report_files.to_samples", lambda result: "x" * 10**6)
    assert "joint" in full(capsys, "report", "a", "b", "--output", "joint")
    assert content(".") == before


def test_evaluate(run, trained, capsys, monkeypatch):
    """What was measured before is still there."""
    folder = shutil.copytree(trained, "again")
    options = ["--checkpoint", folder, "--diagnostics", "false"]
    assert cli.main(["evaluate", *options]) == 0
    before = content(folder)
    monkeypatch.setattr("calmkit.reports.report_files.to_samples", lambda result: "x" * 10**6)
    full(capsys, "evaluate", *options)
    assert content(folder) == before
    assert json.loads((Path(folder) / "evaluation" / "results.json").read_text())
