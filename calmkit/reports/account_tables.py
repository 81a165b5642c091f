"""Tables of accounts: models with the paper's numbers, and the parts of one model."""

from collections.abc import Mapping, Sequence

from calmkit.accounting import PUBLISHED, TRAINING_TOKENS, Account, residuals_to

from .split_table import NumberColumn, SplitTable

__all__ = ["account_notes", "models_table", "parts_table"]

_NOTES = """\
Cells of the paper's models: our number, the paper's number, the relative deviation.
parameters: without the autoencoder.
training, inference: matrix products only; attention counts in full, causal half included.
  Training is {tokens:g} tokens, with the forward and backward passes that the parts execute.
N: sampling below temperature 1, {candidates:g} candidates per chunk, {share:.0%} of them decoded.
kept: activations of one row saved for the backward pass, in the number format of the weights."""


def account_notes(candidates: float, share: float) -> str:
    """Notes for the reader of `models_table`, at most 98 columns wide."""
    return _NOTES.format(tokens=TRAINING_TOKENS, candidates=candidates, share=share)


def models_table(
    accounts: Mapping[str, Account], *, candidates: float, share: float
) -> SplitTable:
    """One line per model, with the columns of the paper's Table 1 and some that it lacks.

    Args:
        accounts: Accounts by model name; the paper's models are compared with its numbers.
        candidates: Latents drawn per chunk below temperature 1.
        share: Share of the candidates that are decoded.
    """
    rows = {}
    for name, account in accounts.items():
        columns = [
            account.trained_parameters / 1e6,
            sum(account.training_flops.values()) * TRAINING_TOKENS / 1e20,
            sum(account.inference_flops().values()) / 1e8,
        ]
        cells = [f"{value:.4g}" for value in columns]
        if name in PUBLISHED:
            paper, off = PUBLISHED[name], residuals_to(PUBLISHED[name], account)
            cells = [
                f"{value:.4g} {published:.4g} {residual:+.1%}"
                for value, published, residual in (
                    (columns[0], paper.parameters / 1e6, off.parameters),
                    (columns[1], paper.training_flops / 1e20, off.training_flops),
                    (columns[2], paper.inference_flops / 1e8, off.inference_flops),
                )
            ]
        rows[name] = [
            *cells,
            f"{sum(account.inference_flops(candidates, share).values()) / 1e8:.4g}",
            f"{account.cache_bytes / 1e3:.0f}",
            f"{sum(account.activation_bytes.values()) / 1e9:.2f}",
        ]
    return _table(
        "model", rows, "parameters\nM", "training\n1e20 FLOPs", "inference\n1e8 FLOPs/token",
        f"N = {candidates:g}\n1e8", "cache\nkB/position", "kept\nGB/row",
    )  # fmt: skip


def parts_table(account: Account, *, candidates: float, share: float) -> SplitTable:
    """One line for each part of a model."""
    inference, sampling = account.inference_flops(), account.inference_flops(candidates, share)
    rows = {}
    for part, parameters in account.parameters.items():
        columns = (
            parameters,
            account.training_flops[part],
            inference[part],
            sampling[part],
            account.activation_bytes[part],
        )
        rows[part] = [f"{value / 1e6:,.1f}" for value in columns]
    return _table(
        "per token:", rows, "parameters\nM", "training\nMFLOPs", "inference\nMFLOPs",
        f"N = {candidates:g}\nMFLOPs", "kept\nMB/row",
    )  # fmt: skip


def _table(corner: str, rows: Mapping[str, Sequence[str]], *headings: str) -> SplitTable:
    columns = [
        NumberColumn(heading, cells)
        for heading, cells in zip(headings, zip(*rows.values(), strict=True), strict=True)
    ]
    return SplitTable(corner=corner, names=tuple(rows), columns=columns)
