"""The forecast as a table: one column per stage."""

import io
import types

import pytest
import torch
from rich.console import Console

from calmkit.accounting import Forecast, TrainingPlan
from calmkit.cli.forecast_tables import forecast_notes, forecast_table

CPU = torch.device("cpu")
PLAN = TrainingPlan(
    steps=1000, batch_size=64, micro_batch=4, positions=16, chunk_size=2, devices=8
)  # fmt: skip
MEMORY = {"weights": 2e6, "optimizer": 4e6, "averages": 0.0, "activations": 1.5e9}


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    monkeypatch.setattr(
        "calmkit.cli.forecast_tables.matrix_peak", lambda device, mixed: 1e12
    )  # fmt: skip


def text(forecasts, device=CPU):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(forecast_table(forecasts, device))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_every_number_is_there():
    """1000 steps of 6.4e13 FLOPs: 20,000 s on 8 devices at 40% of 1e12 a second."""
    lines = text({"autoencoder": Forecast(PLAN, {"weights": 1e6}, 6.4e10),
                  "model": Forecast(PLAN, MEMORY, 6.4e13)})  # fmt: skip
    for line in (
        "each device needs autoencoder model",
        "weights 1.0 MB 2.0 MB",
        "optimizer state 0.0 MB 4.0 MB",
        "activations 0.0 MB 1.5 GB",
        "memory 1.0 MB 1.5 GB",
        "rows at a time 4 4",
        "steps 1,000 1,000",
        "rows of a step 64 64",
        "tokens 2.05e+06 2.05e+06",
        "FLOPs 6.4e+13 6.4e+16",
        "time 20.0 s 5.6 h",
    ):
        assert line in lines, lines
    assert not any("averaged" in line for line in lines)
    # On a machine without a GPU: also the time on as many of a known one.
    assert "time on H100 0.3 s 5.0 min" in lines


def test_a_gpu_is_not_compared_with_another(monkeypatch):
    lines = text({"model": Forecast(PLAN, MEMORY, 6.4e13)}, torch.device("cuda"))
    assert not any("H100" in line for line in lines)


def test_notes_say_what_the_time_assumes():
    forecasts = {"model": Forecast(PLAN, MEMORY, 6.4e13)}
    assert forecast_notes(forecasts, CPU) == (
        "time: 8 devices, each at 40% of its peak in matrix products (here 1 TFLOP/s, measured)."
    )


def test_notes_say_which_stage_exceeds_the_memory_of_a_gpu(monkeypatch):
    """Before the first stage, which may take hours, not after it."""
    gpu = types.SimpleNamespace(total_memory=1.2e9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: gpu)
    forecasts = {"autoencoder": Forecast(PLAN, {"weights": 1e9}, 6.4e10),
                 "model": Forecast(PLAN, MEMORY, 6.4e13)}  # fmt: skip
    _, *notes = forecast_notes(forecasts, torch.device("cuda")).splitlines()
    assert notes == [
        "memory: model needs 1.5 GB, and this device has 1.2 GB. Lower micro_batch, or use "
        "strategy fsdp on several devices."
    ]
    gpu.total_memory = 2e9
    assert "memory" not in forecast_notes(forecasts, torch.device("cuda"))


def test_an_unknown_peak_gives_no_time(monkeypatch):
    monkeypatch.setattr(
        "calmkit.cli.forecast_tables.matrix_peak", lambda device, mixed: None
    )  # fmt: skip
    forecasts = {"model": Forecast(PLAN, MEMORY, 6.4e13)}
    assert "time ?" in text(forecasts, torch.device("mps"))
    assert "(unknown here)" in forecast_notes(forecasts, torch.device("mps"))
