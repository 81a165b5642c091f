"""What a reader must know beside the numbers of a comparison, a line each."""

from collections.abc import Callable, Hashable, Sequence

from calmkit.comparison import ComparisonResult, VariantResult

from .lines import Row, listed

__all__ = ["BUDGETS", "SEVERAL", "notes"]

BUDGETS = {
    "steps": "equal training steps",
    "flops": "equal training FLOPs",
    "seconds": "equal training time",
}
"""What the budgets by name are in words."""

SEVERAL = "; "
"""Between the texts, budgets or machines of runs that were merged."""


def notes(result: ComparisonResult, rows: Sequence[Row]) -> list[str]:
    """The lines, the most surprising first.

    Args:
        result: What is reported.
        rows: Its rows.
    """
    scored = [row for row in rows if not row.has_failed]
    lines = [line for row in rows for line in (*_not_positive(row), *_failures(row.variant))]
    if not scored:
        return [*lines, _text(result), f"Hardware: {result.hardware}."]
    lines.append(
        "Brier-n and BrierLM: higher is better; losses: lower is better. "
        "unigram: token frequencies of the training text, without context."
    )
    lines += _differences(rows)
    seeds = max(row.summary.seeds for row in scored)
    lines.append(
        f"±: standard error over resampled text and over {seeds} seeds of training."
        if seeds > 1
        else "±: standard error over resampled text; with one seed it says nothing of training."
    )
    lines += _few_documents(scored)
    if len(rows) > 1:
        budget = SEVERAL.join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
        lines.append(f"Budget: {budget}. Seeds: {listed([str(seed) for seed in result.seeds])}.")
    restored = _by_variant(
        rows, lambda row: _percent(row.mean(lambda run: run.autoencoder_accuracy))
    )
    lines += [f"Autoencoder{of}: {share} of held-out tokens restored." for of, share in restored]
    protocols = _by_variant(rows, lambda row: row.variant.runs[0].protocol.rstrip("."))
    lines += [f"Protocol{of}: {protocol}." for of, protocol in protocols]
    return [*lines, _text(result), f"Hardware: {result.hardware}."]


def _not_positive(row: Row) -> list[str]:
    """Why a BrierLM is 0."""
    if row.has_failed:
        return []
    # A score that is not finite is not positive either.
    low = [f"-{n}" for n, score in enumerate(row.summary.brier, 1) if not score.value > 0]
    if not low:
        return []
    are = "is" if len(low) == 1 else "are"
    return [f"{row.name}: BrierLM is 0 because Brier{listed(low)} {are} not positive."]


def _failures(variant: VariantResult) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for failure in variant.failures:
        by_reason.setdefault(" ".join(failure.reason.split()), []).append(str(failure.seed))
    return [
        f"{variant.name}: failed with seed{'s' * (len(seeds) > 1)} {listed(seeds)}: {reason}"
        for reason, seeds in by_reason.items()
    ]


def _differences(rows: Sequence[Row]) -> list[str]:
    """What differences are to, and which of them are not paired."""
    scored = [row for row in rows if not row.has_failed]
    if len(scored) < 2:
        return []
    lines = [f"Δ: difference to {scored[0].name}, on the same documents and seeds."]
    apart = [row.name for row in scored if not row.is_paired]
    if apart:
        lines.append(
            f"{listed(apart)}: measured on other documents or rows than {scored[0].name}, so that "
            "differences are of texts too; their errors are added."
        )
    return lines


def _few_documents(scored: Sequence[Row]) -> list[str]:
    """Whose errors are over rows, and what that means."""
    few = [row.name for row in scored if row.variant.runs[0].documents.unit == "rows"]
    if not few:
        return []
    of = "" if len(few) == len(scored) else f"{listed(few)}: "
    return [
        f"{of}fewer than 8 held-out documents, so errors are over rows of text. They understate "
        "how much other documents would differ; 95 % intervals are left out for the same reason."
    ]


def _by_variant(rows: Sequence[Row], fact: Callable[[Row], str]) -> list[tuple[str, str]]:
    """Each different fact, with the variants that it holds for if it does not hold for all."""
    found: dict[Hashable, list[str]] = {}
    for row in rows:
        if not row.has_failed and (told := fact(row)):
            found.setdefault(told, []).append(row.name)
    if len(found) == 1:
        return [("", str(told)) for told in found]
    return [(f" of {listed(names)}", str(told)) for told, names in found.items()]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share == share else ""


def _text(result: ComparisonResult) -> str:
    names, digests = (x.split(SEVERAL) for x in (result.corpus_name, result.corpus_digest))
    if len(names) != len(digests):
        names, digests = [result.corpus_name], [result.corpus_digest]
    told = [f"{name}, SHA-256 {d[:12]}" for name, d in zip(names, digests, strict=True)]
    return f"Text: {SEVERAL.join(told)}."
