"""What a trained model is like to use: how fast it writes, and what."""

import time

import torch

from calmkit.data import TextTokenizer
from calmkit.models import CALM
from calmkit.sampling import BatchTemperature

__all__ = ["microseconds_per_token", "sample_text"]

_ROWS = 8
_FEW_CHUNKS, _MANY_CHUNKS = 2, 12


def microseconds_per_token(model: CALM, prompt: list[int]) -> float:
    """Time of one more token at temperature 1, eight texts at once; the prompt's is taken off.

    Args:
        model: The model, on any device.
        prompt: Tokens before the text.
    """
    _seconds(model, prompt, _FEW_CHUNKS)  # warms up
    seconds = _seconds(model, prompt, _MANY_CHUNKS) - _seconds(model, prompt, _FEW_CHUNKS)
    return 1e6 * seconds / (_ROWS * (_MANY_CHUNKS - _FEW_CHUNKS) * model.chunk_size)


def sample_text(
    model: CALM, tokenizer: TextTokenizer, prompt: list[int], *, max_new_tokens: int, seed: int
) -> str:
    """A text at temperature 1/2 (batch algorithm, 64 candidates), after its prompt in brackets.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompt: Tokens before the text.
        max_new_tokens: Most tokens to write.
        seed: Decides the draws.
    """
    (written,) = model.generate(
        [prompt],
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.end_id,
        sampler=BatchTemperature(0.5, candidates=64),
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )
    return f"[{tokenizer.decode(prompt)}]{tokenizer.decode(written.tokens)}"


def _seconds(model: CALM, prompt: list[int], chunks: int) -> float:
    began = time.perf_counter()
    model.generate(
        [prompt] * _ROWS,
        max_new_tokens=chunks * model.chunk_size,
        generator=torch.Generator(model.backbone.device),
    )
    # generate returns lists: the device has finished.
    return time.perf_counter() - began
