"""The sample texts of a report: each model's by temperature, beside a softmax's of like variety.

Numbers are over all texts of a model at a temperature; see `calmkit.evaluation`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calmkit.evaluation import HELD_OUT, SampleText, nearest_variety

from .lines import Line

__all__ = ["TextToRead", "texts_to_read", "to_samples"]

_OF_SOFTMAX = (1.0, 1 / 2, 1 / 3)


@dataclass(frozen=True)
class TextToRead:
    """Texts under one heading.

    Attributes:
        heading: The sampler.
        numbers: The numbers beside the texts, as a phrase; empty if none is known.
        texts: The texts, the first of which is shown on the page.
    """

    heading: str
    numbers: str
    texts: tuple[str, ...]


def texts_to_read(lines: Sequence[Line]) -> list[tuple[str, list[TextToRead]]]:
    """The texts of each variant that has some, under its name, and the true text last.

    Args:
        lines: All lines of the report; texts are those of the first seed.
    """
    written = [line for line in lines if not line.has_failed and line.variant.runs[0].samples]
    softmax = next((line for line in written if line.loss("cross_entropy") is not None), None)
    found = [(line.name, list(_of_line(line, softmax))) for line in written]
    true = next((one for line in written for one in _samples(line) if _is_true(one)), None)
    return found if true is None else [*found, (true.name, [_shown(true, "after the prompt")])]


def to_samples(lines: Sequence[Line]) -> str:
    """All sample texts as a text file."""
    parts = []
    for name, texts in texts_to_read(lines):
        parts.append(f"=== {name} ===\n")
        for one in texts:
            title = ": ".join(part for part in (one.heading, one.numbers) if part)
            parts += [f"--- {title}\n"] if title else []
            parts += [f"{text}\n" for text in one.texts]
    return "\n".join(parts)


def _of_line(line: Line, softmax: Line | None) -> Iterator[TextToRead]:
    for sample in _samples(line):
        if _is_true(sample):
            continue
        if line is softmax and sample.temperature not in (None, *_OF_SOFTMAX):
            continue
        yield _shown(sample, sample.name)
        if softmax is None or line is softmax or sample.temperature is None:
            continue
        if beside := nearest_variety(_samples(softmax), sample):
            yield _shown(beside, f"beside it, {softmax.name}, {beside.name}")


def _samples(line: Line) -> tuple[SampleText, ...]:
    return line.variant.runs[0].samples


def _is_true(sample: SampleText) -> bool:
    return sample.name == HELD_OUT


def _shown(sample: SampleText, heading: str) -> TextToRead:
    shares = (
        ("of words", sample.known_words),
        ("of chunks", sample.known_chunks),
        ("of 4-grams", sample.known_4grams),
    )
    known = [f"{100 * share:.1f} % {what}" for what, share in shares if share is not None]
    numbers = [f"{', '.join(known)} known from training"] if known else []
    if len(sample.distinct) > 1 and sample.distinct[1] is not None:
        numbers.append(f"distinct-2 {sample.distinct[1]:.2f}")
    if sample.tokens is not None:
        numbers.append(f"{sample.tokens} tokens")
    return TextToRead(heading, "; ".join(numbers), sample.texts)
