"""What a task's `generation_kwargs` ask for.

The harness decodes greedily unless a task sets `do_sample: true` or a temperature. For a softmax,
greedy means the likeliest token. A model that only gives draws takes the most frequent of many
draws, an estimate of the mode.
"""

from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

__all__ = ["task_settings"]

_KNOWN = ("do_sample", "max_gen_toks", "temperature", "top_k", "top_p", "until")


def task_settings(
    asked: Mapping[str, Any], *, temperature: float | None, max_new_tokens: int
) -> dict[str, Any]:
    """The settings of a task, complete: `temperature`, `max_gen_toks` and `until` are always set.

    Args:
        asked: The task's `generation_kwargs`.
        temperature: Replaces the task's temperature, unless None.
        max_new_tokens: Length of a generation if the task sets none.

    Raises:
        ValueError: If a setting is unknown.
    """
    settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), max_new_tokens))
    if unknown := sorted(set(settings) - set(_KNOWN)):
        raise ValueError(
            f"generation_kwargs must be among {', '.join(_KNOWN)}; got {', '.join(unknown)}."
        )
    usual = 1.0 if settings["do_sample"] else 0.0
    chosen = settings.get("temperature", usual) if temperature is None else temperature
    return {**settings, "temperature": float(chosen)}
