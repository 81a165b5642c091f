"""Tests of the GPU are collected everywhere: skipped with a reason, or failing where demanded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("test_on_gpu.py")


@pytest.fixture(scope="module")
def outputs():
    """What pytest says of the GPU's tests where there is no GPU, as a rule and with the demand."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILE]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "CALMKIT_REQUIRE_GPU": demand},
            stdout=subprocess.PIPE,
            text=True,
        )
        for demand in ("0", "1")
    ]
    texts = [process.communicate()[0] for process in running]
    return [(process.returncode, text) for process, text in zip(running, texts, strict=True)]


def test_without_a_gpu_all_are_skipped_with_the_reason(outputs):
    code, text = outputs[0]
    assert code == 0, text
    skipped = int(re.search(r"SKIPPED \[(\d+)\] .*: needs a CUDA device", text)[1])
    assert re.search(rf"^{skipped} skipped in", text, re.MULTILINE), text
    assert skipped > 100


def test_where_one_is_demanded_they_fail(outputs):
    code, text = outputs[1]
    assert code == 1
    assert "CALMKIT_REQUIRE_GPU=1 is set, but torch sees no CUDA device" in text
    assert "skipped" not in text and "passed" not in text
