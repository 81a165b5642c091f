"""What a training will need, as a table with a column per stage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from calmkit.accounting import ASSUMED_SHARE, Forecast, matrix_peak, peak_of_gpu

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["forecast_notes", "forecast_table"]

_REFERENCE = "H100"
_NAMES = {
    "optimizer": "optimizer state",
    "averages": "averaged weights",
    "temporary": "temporary tensors",
    "gathered": "gathered weights",
    "messages": "gradients in transit",
}
_UNITS = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))


def forecast_table(forecasts: Mapping[str, Forecast], device: torch.device) -> "Table":
    """Memory of a device by kind, tokens, FLOPs and time of each stage.

    Args:
        forecasts: The stages by name.
        device: A device that the training will use.
    """
    stages = list(forecasts.values())
    kinds = list(dict.fromkeys(kind for found in stages for kind in found.memory))
    table = _table("each device needs", *forecasts)
    for kind in kinds:
        if any(found.memory.get(kind) for found in stages):
            sizes = [_bytes(found.memory.get(kind, 0.0)) for found in stages]
            table.add_row(_NAMES.get(kind, kind), *sizes)
    table.add_row("memory", *(_bytes(found.total_memory) for found in stages), style="bold")
    table.add_row("rows at a time", *(str(found.plan.rows_at_once) for found in stages))
    table.add_section()
    table.add_row("steps", *(f"{found.plan.steps:,}" for found in stages))
    table.add_row("rows of a step", *(f"{found.plan.batch_size:,}" for found in stages))
    table.add_row("tokens", *(f"{found.tokens:.3g}" for found in stages))
    table.add_row("FLOPs", *(f"{found.flops:.3g}" for found in stages))
    peaks = [matrix_peak(device, mixed=found.plan.mixed) for found in stages]
    table.add_row("time", *map(_time, stages, peaks), style="bold")
    if device.type != "cuda":
        peaks = [peak_of_gpu(_REFERENCE, mixed=found.plan.mixed) for found in stages]
        table.add_row(f"time on {_REFERENCE}", *map(_time, stages, peaks))
    return table


def forecast_notes(forecasts: Mapping[str, Forecast], device: torch.device) -> str:
    """The assumptions of the table, and whether a GPU has less memory than a stage needs."""
    plan = list(forecasts.values())[-1].plan
    peak = matrix_peak(device, mixed=plan.mixed)
    how = "measured" if device.type == "cpu" else "data sheet"
    known = "unknown here" if peak is None else f"here {peak / 1e12:.3g} TFLOP/s, {how}"
    devices = "1 device" if plan.devices == 1 else f"{plan.devices} devices"
    notes = [
        f"time: {devices}, each at {ASSUMED_SHARE:.0%} of its peak in matrix products ({known})."
    ]
    # No refusal: a compiled model needs less than its forecast.
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        notes += [
            f"memory: {stage} needs {_bytes(found.total_memory)}, and this device has "
            f"{_bytes(memory)}. Lower micro_batch, or use strategy fsdp on several devices."
            for stage, found in forecasts.items()
            if found.total_memory > memory
        ]
    return "\n".join(notes)


def _table(first: str, *headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _bytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _time(found: Forecast, peak: float | None) -> str:
    if peak is None:
        return "?"
    seconds = found.seconds(peak)
    size, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"{seconds / size:,.1f} {unit}"
