"""A file that cannot be written, whichever library writes it: one line, one kind of error."""

import subprocess
import sys

import pytest

from calmkit.disk import WriteError, writing

FAILING = """
import resource, sys
import numpy as np, torch
from safetensors.torch import save_file
from calmkit.disk import WriteError, writing

array = np.zeros(100_000)
tensors = {"x": torch.from_numpy(array)}


def by_torch(path):
    with open(path, "wb") as file:
        torch.save(tensors, file)


writers = [
    by_torch,
    lambda path: save_file(tensors, path),
    array.tofile,
    lambda path: open(path, "w").write("x" * 500_000),
]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for number, write in enumerate(writers):
    try:
        with writing("the file", kept="all else is safe"):
            write(f"{sys.argv[1]}/{number}")
    except WriteError as error:
        print(error)
"""


def test_every_library_is_understood(tmp_path):
    command = [sys.executable, "-c", FAILING, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    lines = said.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("the file could not be written: ")
        assert line.endswith("run the same again; all else is safe.")
    assert sum("File too large" in line for line in lines) == 3
    assert "100000 requested and" in lines[2]  # NumPy does not say why


def test_a_device_without_room_is_told():
    with pytest.raises(WriteError, match=r"^there could not be written: No space left on device"):
        with writing("there", kept="all is"):
            with open("/dev/full", "w") as file:
                file.write("x")


@pytest.mark.parametrize("error", [ValueError("v"), RuntimeError("r"), KeyboardInterrupt("k")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)):
        with writing("there", kept="all is"):
            raise error


def test_what_was_told_is_not_told_again():
    with pytest.raises(WriteError, match=r"^inner could not"):
        with writing("outer", kept="all is"):
            with writing("inner", kept="all is"):
                raise OSError(28, "No space left on device")
