"""Accounts as tables: models beside the paper's numbers, and the parts of one model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from calmkit.accounting import PUBLISHED, TRAINING_TOKENS, Account, residuals_to

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["account_notes", "models_table", "parts_table"]

_NOTES = """\
A cell of a model of the paper: ours, the paper's number, how far ours is above it.
parameters: without the autoencoder.
training, inference: matrix products, attention at full context without taking the causal half
  off. Training is {tokens:g} tokens, forward and backward passes as the parts run.
N: sampling below temperature 1, {candidates:g} candidates a chunk, {share:.0%} of them decoded.
kept: activations of one row for its backward pass, in the number format of the weights."""


def account_notes(candidates: float, share: float) -> str:
    """What a reader must know to read `models_table`, at most 98 columns wide."""
    return _NOTES.format(tokens=TRAINING_TOKENS, candidates=candidates, share=share)


def models_table(accounts: Mapping[str, Account], *, candidates: float, share: float) -> "Table":
    """A row for each model: the three columns of the paper's Table 1, and what it leaves out.

    Args:
        accounts: By the models' names; those of the paper are compared with it.
        candidates: Latents drawn for a chunk below temperature 1.
        share: Share of them that is decoded.
    """
    table = _table(
        "model", "parameters\nM", "training\n1e20 FLOPs", "inference\n1e8 FLOPs/token",
        f"N = {candidates:g}\n1e8", "cache\nkB/position", "kept\nGB/row",
    )  # fmt: skip
    for name, ours in accounts.items():
        columns = [
            ours.trained_parameters / 1e6,
            sum(ours.training_flops.values()) * TRAINING_TOKENS / 1e20,
            sum(ours.inference_flops().values()) / 1e8,
        ]
        cells = [f"{value:.4g}" for value in columns]
        if name in PUBLISHED:
            paper, off = PUBLISHED[name], residuals_to(PUBLISHED[name], ours)
            cells = [
                f"{value:.4g} {theirs:.4g} {residual:+.1%}"
                for value, theirs, residual in (
                    (columns[0], paper.parameters / 1e6, off.parameters),
                    (columns[1], paper.training_flops / 1e20, off.training_flops),
                    (columns[2], paper.inference_flops / 1e8, off.inference_flops),
                )
            ]
        table.add_row(
            name,
            *cells,
            f"{sum(ours.inference_flops(candidates, share).values()) / 1e8:.4g}",
            f"{ours.cache_bytes / 1e3:.0f}",
            f"{sum(ours.activation_bytes.values()) / 1e9:.2f}",
        )
    return table


def parts_table(ours: Account, *, candidates: float, share: float) -> "Table":
    """A row for each part of one model."""
    inference, sampling = ours.inference_flops(), ours.inference_flops(candidates, share)
    table = _table(
        "per token:", "parameters\nM", "training\nMFLOPs", "inference\nMFLOPs",
        f"N = {candidates:g}\nMFLOPs", "kept\nMB/row",
    )  # fmt: skip
    for part, parameters in ours.parameters.items():
        columns = (
            parameters,
            ours.training_flops[part],
            inference[part],
            sampling[part],
            ours.activation_bytes[part],
        )
        table.add_row(part, *(f"{value / 1e6:,.1f}" for value in columns))
    return table


def _table(first: str, *headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
