"""What a task's `generation_kwargs` ask for, and the sampler that does it.

The harness decodes greedily unless a task sets `do_sample: true` or a temperature. For a softmax,
greedy means the likeliest token. A model that only gives draws takes the most frequent of many
draws, an estimate of the mode.
"""

from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from calmkit.models import LanguageModel, TokenLM
from calmkit.sampling import BatchTemperature, MostFrequent, Sampler, SoftmaxSampler

__all__ = ["sampler_for", "task_settings"]

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


def sampler_for(
    model: LanguageModel,
    *,
    candidates: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Sampler:
    """The sampler of a temperature; 0 is greedy.

    Args:
        model: The model, whose type decides.
        candidates: Draws per chunk of a model that only gives draws.
        temperature: T at least 0; at most 1 for such a model.
        top_k: Keep this many of a softmax's most likely tokens; all if None.
        top_p: Keep the most likely tokens, or the most frequent chunks, with this total share.

    Raises:
        ValueError: If a number is out of range, or the model has no probabilities to rank.
    """
    if isinstance(model, TokenLM):
        if temperature == 0:
            return SoftmaxSampler(top_k=1)
        return SoftmaxSampler(temperature, top_k, top_p)
    if temperature == 0:
        return MostFrequent(candidates)
    if top_k is not None:
        raise ValueError(
            "top_k must be omitted for a model that only gives draws, since it has no "
            f"probabilities to rank; got {top_k}. Use top_p, which ranks chunks by counts."
        )
    return BatchTemperature(temperature, candidates, top_p=top_p)
