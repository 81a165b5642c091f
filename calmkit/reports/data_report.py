"""A description of a prepared folder, as text and as a plot."""

import numpy as np

from calmkit.data import FolderContent, SideContent
from calmkit.reports.plots.style import Sketch, looks, panels, plain_style, rendered

__all__ = ["data_picture", "data_text"]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_NAMES = ("min", "5 %", "25 %", "median", "75 %", "95 %", "max")
_BINS = 40


def data_text(content: FolderContent) -> str:
    """A description of the folder for the terminal."""
    tokenizer, skipped = content.manifest.tokenizer, content.manifest.skipped
    unknown = "" if content.unknown is None else f", {content.unknown:.3%} unknown"
    fill = ", ".join(f"{share:.1%} at K = {size}" for size, share in content.fill.items())
    lines = [
        f"{content.folder}: SHA-256 {content.manifest.digest[:12]}, by calmkit "
        f"{content.manifest.calmkit}, from {_counted(len(content.manifest.sources), 'file')}",
        f"tokenizer {tokenizer.name}: {tokenizer.vocab_size:,} ids, end of text "
        f"{tokenizer.end_id}",
        "",
        f"{'':12}{'documents':>14}{'tokens':>18}{'characters':>18}{'characters/token':>18}",
        *(_amounts(name, side) for name, side in content.sides.items()),
        content.manifest.held_out_in_words,
        "",
        f"{'tokens of a document':22}" + "".join(f"{name:>10}" for name in _NAMES),
        *(_lengths(name, side) for name, side in content.sides.items()),
        "",
        f"training tokens: {content.broken:.3%} are bytes of a character{unknown}",
        f"places of a row of {content.positions} chunks that hold text: {fill}",
    ]
    if skipped["count"]:
        lines.append(f"bad documents skipped: {skipped['count']}, such as {skipped['first'][0]}")
    lines += ["", f"beginnings of rows, K = {content.chunk_size}, | between chunks, || between "
              "documents:", *(f"  {window}" for window in content.windows)]  # fmt: skip
    return "\n".join(lines)


def data_picture(content: FolderContent) -> bytes:
    """A PNG of document lengths, and of how full rows are for each K."""
    with plain_style():
        figure, axes = panels([2.6, 2.4])
        upper, lower = axes[:, 0]
        styles = looks(len(content.sides))
        bins = _bins([side.lengths for side in content.sides.values()])
        for (name, side), look in zip(content.sides.items(), styles, strict=True):
            shares = np.histogram(side.lengths, bins)[0] / len(side.lengths)
            upper.stairs(100 * shares, bins, label=name, color=look.color, linestyle=look.line)
        upper.set_xscale("log")
        upper.set_xlabel("tokens of a document")
        upper.set_ylabel("% of documents")
        upper.legend()
        names = [str(size) for size in content.fill]
        lower.bar(names, [100 * share for share in content.fill.values()], color=styles[0].color)
        lower.set_ylim(0, 103)
        lower.grid(axis="x", visible=False)
        lower.set_xlabel("K, tokens in a chunk")
        lower.set_ylabel("% of places with text")
        about = f"{content.folder}: lengths of documents, and how full rows are."
        return rendered(Sketch("data", "Prepared text", about, figure)).png


def _bins(lengths: list[np.ndarray]) -> np.ndarray:
    """Bin edges that are even on a logarithmic axis and, if possible, between whole numbers."""
    least, most = (end([part[place] for part in lengths]) for end, place in ((min, 0), (max, -1)))
    edges = np.geomspace(max(least, 1) - 0.5, most + 0.5, _BINS + 1)
    return np.unique(np.floor(edges) + 0.5) if most < 10 * _BINS else edges


def _amounts(name: str, side: SideContent) -> str:
    ratio = side.characters / max(side.tokens - 2 * side.documents, 1)
    return f"{name:12}{side.documents:14,}{side.tokens:18,}{side.characters:18,}{ratio:18.3g}"


def _lengths(name: str, side: SideContent) -> str:
    found = np.quantile(side.lengths, _QUANTILES, method="nearest")
    some = "" if len(side.lengths) == side.documents else f"  (of {len(side.lengths):,})"
    return f"{name:22}" + "".join(f"{length:10,}" for length in found) + some


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
