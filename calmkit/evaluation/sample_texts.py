r"""Texts that a person can read, at several temperatures, with numbers beside them.

A model that only gives draws writes at T = 1, 1/2 and 1/3, by the batch algorithm with N = 200
candidates. A softmax model writes at a range of temperatures. To read the two side by side, take
the softmax's text with the nearest distinct-2 (`nearest_variety`), the share of different bigrams
of tokens: a stand-in for equal entropy, since the entropy of a model that only gives draws is
unknown, and N candidates at temperature T are less sharp than P^(1/T).

The work is bounded: fewer, then shorter texts are written where a token costs many operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calmkit.data import EvaluationRows, TextMixture, TextTokenizer, TokenStore
from calmkit.models import LanguageModel, TokenLM
from calmkit.sampling import BatchTemperature, PlainSampler, Sampler, SoftmaxSampler

from .text_overlap import distinct_share, known_ngrams, known_words, words_in

__all__ = ["HELD_OUT", "SampleText", "nearest_variety", "prompts_of", "write_samples"]

HELD_OUT = "held-out text"
"""Name of the true continuations of the prompts among the texts."""

_CANDIDATES = 200
_OF_DRAWS = (1.0, 1 / 2, 1 / 3)
_OF_SOFTMAX = (1.0, 0.9, 0.8, 0.7, 0.6, 1 / 2, 0.4, 1 / 3)
_TEXTS = 4
# Operations at one temperature. On one CPU thread that is ten to twenty seconds.
_MOST_FLOPS = {"cpu": 5e11}
_MOST_FLOPS_ELSEWHERE = 5e13
_ORDERS = (1, 2, 3)
_LONG = 4


@dataclass(frozen=True, kw_only=True)
class SampleText:
    """Texts of one model at one temperature, and numbers over all of them together.

    Attributes:
        name: The sampler, or `held-out text` for the true continuations of the prompts.
        temperature: T; None where the sampler has none.
        texts: Each text, after its prompt in brackets.
        tokens: Number of generated tokens.
        known_words: Share of the words that occur in the training text; None if it is unknown.
        known_chunks: The same for chunks of tokens; None for single tokens.
        known_4grams: The same for 4-grams of tokens, which all models share.
        distinct: Distinct-1, -2 and -3.
    """

    name: str
    temperature: float | None
    texts: tuple[str, ...]
    tokens: int | None = None
    known_words: float | None = None
    known_chunks: float | None = None
    known_4grams: float | None = None
    distinct: tuple[float | None, ...] = ()


def prompts_of(rows: EvaluationRows, length: int) -> list[tuple[list[int], list[int]]]:
    """Beginnings of a few rows that are spread over the text, and the true text after them.

    Args:
        rows: Held-out rows.
        length: Tokens of a prompt; half of the row, if that is shorter.
    """
    count = len(rows.document)
    found = []
    for row in sorted({number * count // _TEXTS for number in range(_TEXTS)}):
        tokens = rows.batch.tokens[row][rows.batch.real[row]].tolist()
        cut = max(1, min(length, len(tokens) // 2))
        found.append((tokens[:cut], tokens[cut:]))
    return found


def write_samples(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompts: Sequence[tuple[list[int], list[int]]],
    *,
    sampler: Sampler | None,
    max_new_tokens: int,
    sampling_flops: float | None,
    seed: int,
    training_text: TokenStore | TextMixture | None,
) -> tuple[SampleText, ...]:
    """Continue the prompts at each temperature, and with the given sampler first.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompts: Prompts and the true text after them, from `prompts_of`.
        sampler: A sampler beside the temperatures; None: none.
        max_new_tokens: Tokens of each text, fewer if they cost too much.
        sampling_flops: FLOPs of sampling a token with one draw per chunk; None if unknown.
        seed: Seed of the draws.
        training_text: The training text; None if unknown.
    """
    chosen: list[tuple[str, float | None, Sampler, int]] = []
    if sampler is not None:
        # The exact algorithm has a largest number of draws instead.
        draws = getattr(sampler, "max_draws", getattr(sampler, "candidates", 1))
        chosen.append((str(sampler), getattr(sampler, "temperature", None), sampler, draws))
    chosen += _samplers(model)
    device = model.backbone.device
    most = _MOST_FLOPS.get(device.type, _MOST_FLOPS_ELSEWHERE)
    written = []
    for name, temperature, one, draws in chosen:
        tokens = max_new_tokens
        if sampling_flops is not None:
            tokens = int(most / (draws * sampling_flops))
        rows = min(len(prompts), max(1, tokens // max_new_tokens))
        found = model.generate(
            [prompt for prompt, _ in prompts[:rows]],
            max_new_tokens=max(model.chunk_size, min(max_new_tokens, tokens)),
            eos_id=tokenizer.end_id,
            sampler=one,
            generator=torch.Generator(device).manual_seed(seed),
        )
        written.append((name, temperature, [text.tokens for text in found]))
    true = [text[:max_new_tokens] for _, text in prompts]
    written.append((HELD_OUT, None, true))
    starts = [prompt for prompt, _ in prompts]
    return _measured(written, starts, tokenizer, model.chunk_size, training_text)


def nearest_variety(samples: Sequence[SampleText], like: SampleText) -> SampleText | None:
    """The text at a temperature whose distinct-2 is nearest; None if none is known.

    Args:
        samples: Texts of a softmax model.
        like: A text of another model.
    """
    wanted = like.distinct[1] if like.distinct else None
    known = [
        (abs(one.distinct[1] - wanted), number)
        for number, one in enumerate(samples)
        if one.temperature is not None and wanted is not None
        and one.distinct and one.distinct[1] is not None
    ]  # fmt: skip
    return samples[min(known)[1]] if known else None


def _samplers(model: LanguageModel) -> list[tuple[str, float | None, Sampler, int]]:
    """Name, temperature, sampler and draws per chunk."""
    if isinstance(model, TokenLM):
        return [(f"T = {_short(t)}", t, SoftmaxSampler(t), 1) for t in _OF_SOFTMAX]
    plain, *colder = _OF_DRAWS
    return [(f"T = {_short(plain)}", plain, PlainSampler(), 1)] + [
        (f"T = {_short(t)}, N = {_CANDIDATES}", t, BatchTemperature(t, _CANDIDATES), _CANDIDATES)
        for t in colder
    ]


def _short(temperature: float) -> str:
    inverse = round(1 / temperature)
    exact = inverse > 1 and temperature == 1 / inverse
    return f"1/{inverse}" if exact else f"{temperature:g}"


def _measured(
    written: Sequence[tuple[str, float | None, list[list[int]]]],
    prompts: Sequence[list[int]],
    tokenizer: TextTokenizer,
    chunk_size: int,
    training_text: TokenStore | TextMixture | None,
) -> tuple[SampleText, ...]:
    """Texts with their numbers; the training text is searched once for all of them."""
    pieces = [[tokenizer.decode(row) for row in rows] for _, _, rows in written]
    starts = [tokenizer.decode(prompt) for prompt in prompts]
    words = [
        [
            word
            for start, piece in zip(starts, texts, strict=False)
            for word in words_in(piece, begins_inside=start[-1:].isalpha(), ends_inside=True)
        ]
        for texts in pieces
    ]
    chunks = [_ngrams(rows, chunk_size, chunk_size) for _, _, rows in written]
    long = [_ngrams(rows, _LONG, 1) for _, _, rows in written]
    shares: list[tuple[float | None, ...]] = [(None, None, None)] * len(written)
    if training_text is not None:
        known = known_words(training_text, tokenizer, {word for some in words for word in some})
        of_words = [_share([word in known for word in some]) for some in words]
        of_chunks = (
            _known_shares(training_text, chunks) if chunk_size > 1 else [None] * len(written)
        )
        shares = list(zip(of_words, of_chunks, _known_shares(training_text, long), strict=True))
    return tuple(
        SampleText(
            name=name,
            temperature=temperature,
            texts=tuple(f"[{s}]{p}" for s, p in zip(starts, texts, strict=False)),
            tokens=sum(map(len, rows)),
            known_words=share[0],
            known_chunks=share[1],
            known_4grams=share[2],
            distinct=tuple(distinct_share(rows, n) for n in _ORDERS),
        )
        for (name, temperature, rows), texts, share in zip(written, pieces, shares, strict=True)
    )


def _ngrams(rows: Sequence[Sequence[int]], size: int, stride: int) -> np.ndarray:
    """The n-grams of all rows, (ngrams, n)."""
    found = [row[i : i + size] for row in rows for i in range(0, len(row) - size + 1, stride)]
    return np.array(found, dtype=np.int64).reshape(-1, size)


def _known_shares(
    text: TokenStore | TextMixture, ngrams: Sequence[np.ndarray]
) -> list[float | None]:
    known = known_ngrams(text, np.concatenate(ngrams))
    ends = np.cumsum([len(some) for some in ngrams])
    return [_share(part.tolist()) for part in np.split(known, ends[:-1])]


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
