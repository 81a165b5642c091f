"""Tests of the GPU are collected everywhere: skipped with a reason, or failing where demanded."""

import re
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).with_name("test_on_gpu.py")


@pytest.fixture
def run(monkeypatch, capsys, request):
    """Runs the GPU's tests where there is no GPU: the exit code, and what pytest says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(demand):
        monkeypatch.setenv("CALMKIT_REQUIRE_GPU", demand)
        options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
        # conftest.py, which is read again, would set back what the whole run was given.
        if profile := request.config.getoption("--hypothesis-profile"):
            options.append(f"--hypothesis-profile={profile}")
        code = pytest.main([*options, str(FILE)])
        return code, capsys.readouterr().out

    return run


def test_without_a_gpu_all_are_skipped_with_the_reason(run):
    code, text = run("0")
    assert code == 0, text
    skipped = int(re.search(r"SKIPPED \[(\d+)\] .*: needs a CUDA device", text)[1])
    assert re.search(rf"^{skipped} skipped in", text, re.MULTILINE), text
    assert skipped > 100


def test_where_one_is_demanded_they_fail(run):
    code, text = run("1")
    assert code == 1
    assert "CALMKIT_REQUIRE_GPU=1 is set, but torch sees no CUDA device" in text
    assert "skipped" not in text and "passed" not in text
