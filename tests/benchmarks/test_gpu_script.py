"""The script for one GPU: what it runs, and that no part stops the others.

Commands are only recorded here; the check of a clean checkout rehearses them.
"""

import json
import os
import shlex
import subprocess

import pytest
from benchmark_runs import BENCHMARKS

from calmkit.config import parse

# Stands for Python: records its arguments, and fails where it is told.
PYTHON = """#!/bin/bash
case "$1" in -) cat > /dev/null; echo '{"device": "none"}'; exit;; -c) echo 989.0; exit;; esac
printf '%q ' "$@" >> "$RECORD"; echo >> "$RECORD"
case "$*" in *"$FAILING"*) echo "out of luck"; exit 3;; *"$SLOW"*) sleep 30;; esac
"""


@pytest.fixture
def script(tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "manifest.json").write_text("{}")

    def run(*arguments, failing="nothing", slow="nothing", **environment):
        done = subprocess.run(
            [BENCHMARKS / "gpu.sh", *arguments], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHON": str(python), "RECORD": str(tmp_path / "record"),
                 "FAILING": failing, "SLOW": slow, **environment}, check=False,
        )  # fmt: skip
        record = tmp_path / "record"
        commands = record.read_text().splitlines() if record.exists() else []
        return done, [shlex.split(line) for line in commands]

    return run


def parts_in(folder):
    return [json.loads(line) for line in (folder / "parts.jsonl").read_text().splitlines()]


def test_a_part_that_fails_does_not_stop_the_others(script, tmp_path):
    done, commands = script("out", "prepared", failing="packed_attention.py")
    assert (done.returncode, len(commands)) == (1, 10)
    parts = parts_in(tmp_path / "out")
    assert [(one["part"], one["exit"]) for one in parts] == [
        ("gpu_tests", 0), ("calm_m", 0), ("generation", 0), ("packed_attention", 3),
        ("books_tied", 0), ("books_text", 0), ("books_softmax", 0), ("books_energy", 0),
        ("books_flow", 0), ("books_gaussian", 0),
    ]  # fmt: skip
    assert all(one["environment"] == {"device": "none"} for one in parts)
    assert (tmp_path / "out" / "packed_attention.log").read_text() == "out of luck\n"


def test_every_part_ends_in_time(script, tmp_path):
    """Three seconds are left: the first part is stopped, and the others are not begun."""
    done, commands = script("out", "prepared", slow="cacheprovider", SECONDS_LEFT="3")
    assert (done.returncode, len(commands)) == (1, 1)
    assert [one["exit"] for one in parts_in(tmp_path / "out")] == [124] * 10


def test_commands_name_what_there_is(script, load, tmp_path):
    _, (tests, calm_m, generation, packed, tied, text, *books) = script("out", "prepared")
    assert tests[-3:] == ["gpu", "tests/attention", "tests/sampling"]
    for command in (generation, packed):
        source = (BENCHMARKS.parent / command[0]).read_text()
        assert all(f'"{option}"' in source for option in command if option.startswith("--"))
    own, keys = load("calm_m_step").options(calm_m[1:])
    assert (own.device.type, own.json) == ("cuda", tmp_path / "out" / "calm_m.json")
    experiment = parse(keys, command="calmkit train").experiment
    assert experiment.training.batch_size == 2 * experiment.training.micro_batch
    assert (experiment.hidden_size, experiment.positions) == (1024, 2048)
    assert text[text.index("--checkpoint") + 1] == tied[tied.index("--output") + 1]
    models = ["calm", "token_lm", "calm", "calm", "calm"]
    for options, model in zip([tied, *books], models, strict=True):
        options[options.index("--data") + 1] = "null"
        experiment = parse(options[3:], command="calmkit train").experiment
        assert (experiment.model, experiment.hidden_size) == (model, 512)
        assert experiment.chunk_size * experiment.positions == 256


def test_mistakes_are_told(script):
    done, commands = script("out")
    assert (done.returncode, commands) == (2, [])
    assert "benchmarks/gpu.sh OUT PREPARED" in done.stderr
    done, commands = script("out", ".")
    assert (done.returncode, commands) == (2, [])
    assert "must be a folder written by calmkit prepare" in done.stderr


def test_a_rehearsal_has_the_same_parts(script, tmp_path):
    _, real = script("out", "prepared")
    (tmp_path / "record").unlink()
    done, rehearsed = script("--rehearse", "out")
    assert done.returncode == 0
    assert [command[:2] for command in rehearsed] == [command[:2] for command in real]
    assert not any("cuda" in command for command in rehearsed)
