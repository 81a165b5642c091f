"""What is the same for every command."""

import gc
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import forking
import pytest

from calmkit import __version__, cli
from calmkit.cli import compare as compare_command
from calmkit.cli import dispatch


class TestWithoutWork:
    @pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
    def test_help_fits_a_screen(self, arguments, capsys):
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert "calmkit COMMAND" in out and "generate" in out
        assert len(out.splitlines()) < 25 and max(map(len, out.splitlines())) < 100

    def test_python_runs_it_as_a_module(self):
        command = [sys.executable, "-m", "calmkit", "--version"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"calmkit {__version__}\n")

    def test_version(self, capsys):
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out == f"calmkit {__version__}\n"

    def test_a_misspelt_command(self, capsys):
        assert cli.main(["compre"]) == 2
        assert capsys.readouterr().err == (
            "calmkit compre: not a command.\n  did you mean: compare\n"
            "  allowed: compare, train, evaluate, features, generate, prepare, data, convert, "
            "account, check, report, harness\n"
        )

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from calmkit.cli import main; main(['--help']); "
            "print(sorted({'torch', 'jsonargparse', 'rich', 'matplotlib'} & set(sys.modules)))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        assert out.splitlines()[-1] == "[]"

    def test_a_missing_extra_is_one_line(self, monkeypatch, capsys):
        monkeypatch.setattr(dispatch, "_NEEDED", ("jsonargparse", "not_installed_here"))
        assert cli.main(["compare"]) == 2
        err = capsys.readouterr().err
        assert err == (
            "calmkit compare needs not_installed_here; "
            "install it with pip install 'calmkit[cli]'.\n"
        )

    @pytest.mark.parametrize("command", dispatch._COMMANDS)
    def test_each_command_has_help(self, command, run, capsys):
        assert cli.main([command, "--help"]) == 0
        assert f"usage: calmkit {command}" in capsys.readouterr().out
        assert run.calls == []


def test_ctrl_c_waits_for_an_import(monkeypatch, capsys):
    """Torch ends the process without a word if its loading is interrupted."""
    ended = []

    def load(name):
        signal.raise_signal(signal.SIGINT)
        ended.append(name)

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    assert cli.main(["report", "x"]) == 130 and ended == ["calmkit.cli.report"]
    err = capsys.readouterr().err
    assert "interrupted by Ctrl-C" in err and "same command" not in err


def test_imported_modules_are_not_looked_at_for_garbage(monkeypatch):
    seen = []

    def load(name):
        seen.append((gc.isenabled(), gc.get_freeze_count()))
        return SimpleNamespace(run=lambda given: load("run"))

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    monkeypatch.delitem(sys.modules, "calmkit.cli.report", raising=False)
    gc.unfreeze()
    assert cli.main(["report", "x"]) == 0
    (importing, before), (running, after) = seen
    assert (importing, running) == (False, True) and before < after


def told_in_one_line(err):
    return (
        "interrupted by Ctrl-C" in err
        and len(err.splitlines()) == 1
        and err.endswith("what is written is kept. The same command goes on.\n")
    )


def test_ctrl_c_while_importing_leaves_no_traceback(tmp_path):
    code = """
import sys
from calmkit.cli import main
print("importing", flush=True)
sys.exit(main(["compare", "--config", "ci"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and told_in_one_line(err), err


def compare_until_interrupted(folder):
    """`calmkit compare`, whose trainings would take forever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)

    def compare(*args):
        print("working", flush=True)
        time.sleep(60)

    compare_command.compare = compare
    sys.exit(cli.main(["compare", "--config", "ci"]))


def test_ctrl_c_while_working_leaves_no_traceback(tmp_path):
    said, cache = tmp_path / "said", str(tmp_path)
    process = forking.start(compare_until_interrupted, tmp_path, output=said, XDG_CACHE_HOME=cache)
    while not (said.exists() and "working\n" in said.read_text()):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert forking.finished(process, seconds=60) == 130
    err = said.read_text().partition("working\n")[2]
    assert told_in_one_line(err), err
