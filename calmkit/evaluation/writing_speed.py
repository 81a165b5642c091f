"""The generation speed of a model."""

import time

import torch

from calmkit.models import LanguageModel
from calmkit.sampling import Sampler

__all__ = ["PROMPT_TOKENS", "microseconds_per_token", "positions_written"]

PROMPT_TOKENS = 16  # at most
_ROWS = 8
_FEW_CHUNKS, _MANY_CHUNKS = 2, 12


def microseconds_per_token(model: LanguageModel, prompt: list[int], sampler: Sampler) -> float:
    """Time per generated token in a batch of eight texts, without the time for the prompt.

    Args:
        model: The model, on any device.
        prompt: Tokens before the text.
        sampler: Chooses chunks.
    """
    _seconds(model, prompt, sampler, _FEW_CHUNKS)  # warms up
    seconds = _seconds(model, prompt, sampler, _MANY_CHUNKS)
    seconds -= _seconds(model, prompt, sampler, _FEW_CHUNKS)
    return 1e6 * seconds / (_ROWS * (_MANY_CHUNKS - _FEW_CHUNKS) * model.chunk_size)


def positions_written(chunk_size: int, sample_tokens: int) -> int:
    """Number of positions that a model reads for the timing and for the sample text.

    Args:
        chunk_size: K, tokens in a chunk.
        sample_tokens: Maximum length of the sample text in tokens.
    """
    prompt, sample = (-(-tokens // chunk_size) for tokens in (PROMPT_TOKENS, sample_tokens))
    return prompt + max(_MANY_CHUNKS, sample) - 1  # the last chunk is not read


def _seconds(model: LanguageModel, prompt: list[int], sampler: Sampler, chunks: int) -> float:
    began = time.perf_counter()
    model.generate(
        [prompt] * _ROWS,
        max_new_tokens=chunks * model.chunk_size,
        sampler=sampler,
        generator=torch.Generator(model.backbone.device),
    )
    # generate returns lists, so the device has finished.
    return time.perf_counter() - began
