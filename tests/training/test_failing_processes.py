"""A process that fails where the others wait for it: all end with its error, within seconds."""

import socket
import time

import forking
import process_runs
import pytest

pytestmark = pytest.mark.slow

OWN = "process 1 has failed with ValueError: a mistake of one's own"


@pytest.mark.parametrize(
    "strategy, kind, goes_on, own, others",
    [
        ("ddp", "error", True, "ValueError: a mistake", f"{OWN}; process 0 ends with it."),
        ("fsdp", "error", True, "ValueError: a mistake", f"{OWN}; process 0 ends with it."),
        ("fsdp", "error", False, "ValueError: a mistake", f"LostProcessError: {OWN}; all proc"),
        ("fsdp", "nan", True, "TrainingDiverged: ", "NonFiniteError: tokens must be finite; 1"),
    ],
)
def test_all_end_with_the_error_of_one(tmp_path, strategy, kind, goes_on, own, others):
    """Also if its program catches the error and goes on: nobody can wait for its death then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    files = [tmp_path / "0", tmp_path / "1"]
    first, second = (
        forking.start(process_runs.fail, rank, port, strategy, kind, goes_on, output=file)
        for rank, file in enumerate(files)
    )
    try:
        assert forking.finished(first, seconds=120) != 0
        ended = time.monotonic()
        while own not in files[1].read_text():
            assert time.monotonic() - ended < 10, files[1].read_text()
            time.sleep(0.05)
    finally:
        second.kill()
        second.join()
    assert others in files[0].read_text()
