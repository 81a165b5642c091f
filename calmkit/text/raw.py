"""A document as raw bytes of a file, and its text.

A reader quickly returns documents as bytes, so that the slow parsing and decoding can run in
another process. A reader never raises. It reports a fault of a file as a document with a
`problem`, so that the stream can continue after a bad line.
"""

from dataclasses import dataclass

from .json_lines import string_fields

__all__ = ["BadInputError", "RawDocument", "text_of"]


class BadInputError(ValueError):
    """A document, or the rest of a file, cannot be read; gives location, reason and remedy."""

    @classmethod
    def beyond(cls, problem: str, allowed: int) -> "BadInputError":
        """The error for the first bad document beyond the allowed number.

        Args:
            problem: Its error message.
            allowed: Number of documents skipped before it.
        """
        before = f"; {allowed} were before it." if allowed else "."
        return cls(f"{problem} Or set skip_bad, the number of bad documents to skip{before}")


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as found by a reader.

    Attributes:
        place: Its location: "a.jsonl:7", "row 3 of row group 0 of a.parquet".
        data: Its UTF-8 bytes.
        kind: Whether `data` is a whole "file", a "line" of JSON or the "value" of a column.
        position: Bytes of the file read so far.
        problem: The error message, a full sentence; empty if there is no error.
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
        BadInputError: If it has a problem, is not UTF-8, or is not JSON with that string.
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
