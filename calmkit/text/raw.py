"""A document as it stands in a file, and its text.

Whoever reads a file gives documents as bytes, quickly; what is slow, parsing and decoding, can
then happen elsewhere. What is wrong with a file comes in its place in the stream, as a document
with a `problem`: a reader never raises, so that a stream can go on behind a bad line.
"""

from dataclasses import dataclass

from .json_lines import string_fields

__all__ = ["BadInputError", "RawDocument", "text_of"]


class BadInputError(ValueError):
    """A document, or the rest of a file, cannot be read; says where, why and what to do."""

    @classmethod
    def beyond(cls, problem: str, allowed: int) -> "BadInputError":
        """One more than may be left out.

        Args:
            problem: What is wrong.
            allowed: How many were left out before.
        """
        before = f"; {allowed} were before it." if allowed else "."
        return cls(
            f"{problem} Or give skip_bad, the number of bad documents that may be left out{before}"
        )


@dataclass(frozen=True, slots=True)
class RawDocument:
    """What a reader found.

    Attributes:
        place: Where: "a.jsonl:7", "row 3 of row group 0 of a.parquet".
        data: UTF-8.
        kind: Whether `data` is a whole "file", a "line" of JSON or the "value" of a column.
        position: Bytes of the file that had been read.
        problem: What is wrong there, in a whole sentence; empty if nothing is.
    """

    place: str
    data: bytes
    kind: str
    position: int
    problem: str = ""


def text_of(raw: RawDocument, field: str) -> str:
    r"""The text of a document; line ends of a file are read as `\n`.

    Args:
        raw: The document.
        field: The key of the text in a line of JSON.

    Raises:
        BadInputError: If it has a problem, is not UTF-8, or is no JSON with that string.
    """
    if raw.problem:
        raise BadInputError(raw.problem)
    try:
        text = raw.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"data must be UTF-8; {raw.place} is not, at byte {error.start}. Convert it, for "
            "instance with iconv."
        ) from None
    if raw.kind == "file":
        return text.replace("\r\n", "\n").replace("\r", "\n")
    if raw.kind == "value" or not text.strip():
        return text
    try:
        return string_fields(text, [field], raw.place)[field]
    except ValueError as error:
        raise BadInputError(str(error)) from None
