"""Files of text, and lines of JSON with fields of text; what is wrong is told by file and line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["check_unicode", "read_json_lines", "read_text", "string_fields"]


def read_text(path: Path, *, name: str) -> str:
    r"""A UTF-8 file, with or without a byte order mark; line ends are read as `\n`.

    Args:
        path: The file.
        name: What to call the argument that named it.

    Raises:
        ValueError: If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} must be UTF-8; {str(path)!r} is not, at byte {error.start}. "
            "Convert it, for instance with iconv."
        ) from error
    except OSError as error:
        raise ValueError(
            f"{name} must be readable; {str(path)!r} is not: {error.strerror}."
        ) from error


def read_json_lines(
    path: Path, fields: Sequence[str], *, name: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """For each line that is not blank: its number, from 1 on, and its fields.

    Args:
        path: The file.
        fields: Keys that every line must have, each with a string.
        name: What to call the argument that named the file.

    Raises:
        ValueError: If the file cannot be read, or a line is not such an object.
    """
    try:
        # Not splitlines(): JSON strings may hold U+2028 and other line ends unescaped.
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, string_fields(line.rstrip("\n"), fields, f"{path}:{number}")
    except (UnicodeDecodeError, OSError):
        read_text(path, name=name)  # tells what is wrong, and at which byte of the file
        raise


def check_unicode(text: str, *, name: str, place: str) -> None:
    """Refuse a text that cannot be written in UTF-8, and so not be read by a tokenizer.

    Args:
        text: The text.
        name: What to call it.
        place: Where it was given.

    Raises:
        ValueError: If there is half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} must be valid Unicode; {place} has half of a surrogate pair at character "
            f"{error.start}."
        ) from error


def string_fields(line: str, fields: Sequence[str], place: str) -> dict[str, str]:
    """The strings of one line of JSON.

    Args:
        line: An object.
        fields: Keys that it must have, each with a string.
        place: Where it stands.

    Raises:
        ValueError: If it is not such an object.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"each line of a .jsonl file must be JSON; {place} is not: {error.msg} "
            f"at column {error.colno}."
        ) from None
    except (RecursionError, ValueError) as error:  # nested without end; digits without end
        raise ValueError(
            f"each line of a .jsonl file must be JSON of a sensible size; {place} is not: {error}."
        ) from None
    return {field: _string_field(record, field, place) for field in fields}


def _string_field(record: object, field: str, place: str) -> str:
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        kind = f", with a {type(text).__name__} there" if text is not None else ""
        raise ValueError(
            f'each line of a .jsonl file must be an object with a "{field}" string; {place} has '
            f"{found}{kind}."
        )
    check_unicode(text, name=f'"{field}"', place=place)
    return text
