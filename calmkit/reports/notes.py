"""Notes on the numbers of a comparison, one per line."""

from collections.abc import Callable, Hashable, Sequence

from calmkit.comparison import ComparisonResult, TrialResult, VariantResult
from calmkit.experiments import RunResult

from .columns import rounded
from .lines import Line, listed, ranges

__all__ = ["BUDGETS", "SEVERAL", "notes"]

BUDGETS = {
    "steps": "equal training steps",
    "flops": "equal training FLOPs",
    "seconds": "equal training time",
}
"""Descriptions of the budgets, by name."""

SEVERAL = "; "
"""Separator between the texts, budgets or machines of merged comparisons."""


def notes(result: ComparisonResult, lines: Sequence[Line]) -> list[str]:
    """The notes, the most surprising first."""
    scored = [line for line in lines if not line.has_failed]
    found = [
        note
        for line in lines
        for note in (*_identical(line), *_not_positive(line), *_failures(line.variant))
    ]
    if not scored:
        return [*found, _text(result), f"Hardware: {result.hardware}."]
    unknown = [line.name for line in scored if not line.baselines]
    found.append(
        "Brier-n and BrierLM: higher is better; losses: lower is better."
        if len(unknown) == len(scored)
        else "Brier-n and BrierLM: higher is better; losses: lower is better. "
        "Baselines count the training text: token frequencies (unigram), and n-grams with "
        "Witten-Bell smoothing (bigram, trigram)."
    )
    if unknown:
        who = "the model" if len(lines) == 1 else listed(unknown)
        was = "was" if len(unknown) == 1 else "were"
        found.append(
            f"The text that {who} {was} trained on is unknown: on text that it has seen, a model "
            "scores too well."
        )
    found += _differences(lines)
    counts = {len(line.summary.seeds) for line in scored}
    seeds = f"{max(counts)} seeds" if len(counts) == 1 else "the row's seeds"
    found.append(
        f"±: standard error over resampled text and over {seeds} of training."
        if counts != {1}
        else "±: standard error over resampled text; with one seed it says nothing about training."
    )
    found += _timings(scored)
    found += [*result.remarks, *_trials(result)]
    found += _few_documents(scored)
    if len(lines) > 1:
        budget = SEVERAL.join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
        found.append(f"Budget: {budget}.")
        of_seeds = _by_variant(lines, lambda line: ranges(line.summary.seeds))
        found += [f"Seeds{of}: {seeds}." for of, seeds in of_seeds]
    restored = _by_variant(lines, _restored)
    found += [f"Autoencoder{of}: {share} of held-out tokens restored." for of, share in restored]
    written = _by_variant(lines, lambda line: str(line.variant.runs[0].continuations or ""))
    found += [f"Continued{of}: {text}." for of, text in written]
    protocols = _by_variant(lines, lambda line: line.variant.runs[0].protocol.rstrip("."))
    found += [f"Protocol{of}: {protocol}." for of, protocol in protocols]
    return [*found, _text(result), f"Hardware: {result.hardware}."]


def _identical(line: Line) -> list[str]:
    """An alarm where all draws are equal."""
    if line.has_failed or not any(map(_draws_are_equal, line.variant.runs)):
        return []
    return [
        f"{line.name}: ALARM: all draws are equal and not the text, as from a deterministic "
        "sampler (noise_scale 0, an argmax inside). Each Brier-n is then 2 hit - 100 %, and "
        "BrierLM says nothing of the model."
    ]


def _draws_are_equal(run: RunResult) -> bool:
    """Whether all draws of a run were equal and some were wrong, from its sums over documents."""
    scores = run.documents
    rates = dict(
        zip(scores.names, (scores.sums.sum(0) / scores.counts.sum(0)).tolist(), strict=True)
    )
    collisions = [rate for name, rate in rates.items() if name.startswith("collision_")]
    return bool(collisions) and min(collisions) > 1 - 1e-9 and rates["hit_1"] < 1 - 1e-9


def _not_positive(line: Line) -> list[str]:
    """The reason for a BrierLM of 0."""
    if line.has_failed:
        return []
    low = [f"-{n}" for n, score in enumerate(line.summary.brier, 1) if not score.value > 0]
    if not low:
        return []
    are = "is" if len(low) == 1 else "are"
    return [f"{line.name}: BrierLM is 0 because Brier{listed(low)} {are} not positive."]


def _failures(variant: VariantResult) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for failure in variant.failures:
        by_reason.setdefault(" ".join(failure.reason.split()), []).append(str(failure.seed))
    return [
        f"{variant.name}: failed with seed{'s' * (len(seeds) > 1)} {listed(seeds)}: {reason}"
        for reason, seeds in by_reason.items()
    ]


def _differences(lines: Sequence[Line]) -> list[str]:
    """The reference of the differences, and the lines that share only a part with it."""
    first, *others = [line for line in lines if not line.has_failed]
    if not others:
        return []
    found = [f"Δ: difference to {first.name}, on the same documents and seeds."]
    for line in others:
        one, base = line.summary, first.summary
        unit = line.variant.runs[0].documents.unit
        if not set(one.seeds) & set(base.seeds):
            found.append(f"{line.name}: no Δ, since it has no seed in common with {first.name}.")
        elif not one.shared_seeds:
            why = (
                "its evaluated rows are not those of"
                if "rows" in (unit, first.variant.runs[0].documents.unit)
                else "it has no two evaluated documents in common with"
            )
            found.append(f"{line.name}: no Δ, since {why} {first.name}.")
        elif not line.shares_all_with(first):
            found.append(
                f"{line.name}: Δ over what both have: {len(one.shared_seeds)} "
                f"seed{'s' * (len(one.shared_seeds) > 1)} ({ranges(one.shared_seeds)}) and "
                f"{one.shared_documents} {unit}."
            )
    return found


def _timings(scored: Sequence[Line]) -> list[str]:
    """What the times per token are."""
    repeats = [line.timing.repeats for line in scored if line.timing is not None]
    if max(repeats, default=0) < 2:
        return []
    least, most = min(repeats), max(repeats)
    counted = f"{least}" if least == most else f"{least} to {most}"
    return [f"µs/token: median of {counted} repeats ± half the distance between their quartiles."]


def _trials(result: ComparisonResult) -> list[str]:
    """The trials of tuning and the chosen values of each variant."""
    return [
        f"{variant.name}, tuned: {SEVERAL.join(map(_trial, variant.trials))}."
        for variant in result.variants
        if variant.trials
    ]


def _trial(trial: TrialResult) -> str:
    values = ", ".join(f"{key} = {value}" for key, value in trial.values.items())
    score = rounded(trial.brier_1)
    shown = "failed" if trial.brier_1 is None else f"{score.value} {score.error}".strip()
    return f"{values} ({shown}{', chosen' * trial.is_chosen})"


def _few_documents(scored: Sequence[Line]) -> list[str]:
    """The variants whose errors are over rows, and the consequence."""
    few = [line.name for line in scored if line.variant.runs[0].documents.unit == "rows"]
    if not few:
        return []
    of = "" if len(few) == len(scored) else f"{listed(few)}: "
    return [
        f"{of}fewer than 8 held-out documents, so errors are over rows of text. They understate "
        "the variation between documents; 95 % intervals are omitted for the same reason."
    ]


def _by_variant(lines: Sequence[Line], fact: Callable[[Line], str]) -> list[tuple[str, str]]:
    """Each distinct fact; with its variants, unless it holds for all."""
    found: dict[Hashable, list[str]] = {}
    for line in lines:
        if not line.has_failed and (text := fact(line)):
            found.setdefault(text, []).append(line.name)
    if len(found) == 1:
        return [("", str(text)) for text in found]
    return [(f" of {listed(names)}", str(text)) for text, names in found.items()]


def _restored(line: Line) -> str:
    share = line.mean(lambda run: run.autoencoder_accuracy)
    return "" if share is None else f"{100 * share:.2f} %"


def _text(result: ComparisonResult) -> str:
    names, digests = (x.split(SEVERAL) for x in (result.corpus_name, result.corpus_digest))
    if len(names) != len(digests):
        names, digests = [result.corpus_name], [result.corpus_digest]
    texts = [f"{name}, SHA-256 {d[:12]}" for name, d in zip(names, digests, strict=True)]
    return f"Text: {SEVERAL.join(texts)}."
