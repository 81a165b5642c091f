"""Multiple-choice questions, whose choices reach a model as separate requests."""

import math
from collections.abc import Sequence

from lm_eval.api.instance import Instance

from calmkit.models import RankedContinuation

__all__ = ["questions_of", "undecided"]


def questions_of(requests: Sequence[Instance]) -> list[tuple[str, list[int]]]:
    """The task of each question, and the places of its choices among the requests."""
    found: dict[tuple[str | None, int | None], list[int]] = {}
    for place, one in enumerate(requests):
        found.setdefault((one.task_name, one.doc_id), []).append(place)
    return [(str(task), places) for (task, _), places in found.items()]


def undecided(choices: Sequence[RankedContinuation]) -> bool:
    """Whether the best two of some choices differ by at most two standard errors."""
    best, second = sorted(choices, key=lambda one: one.score)[:2]
    error = math.hypot(best.standard_error, second.standard_error)
    return second.score - best.score <= 2 * error
