r"""Where text comes from: a list of documents, each a non-empty string.

| given | documents |
|---|---|
| nothing | the English prose shipped with CPython (`pydoc_data.topics`), a document per topic |
| `.txt` | the file |
| `.jsonl` | the `"text"` field of each line |
| a folder | those of all `.txt` and `.jsonl` files below it, in the order of their paths |

Documents of nothing but white space are left out. Training and validation are split *by
document*, so a single document is cut into sections (`split_into_sections`).

Files are UTF-8, with or without a byte order mark; line ends are read as `\n`.
"""

from collections.abc import Callable
from pathlib import Path

from .content import content_key
from .json_lines import read_json_lines, read_text

__all__ = ["EMBEDDED_NAME", "read_documents", "split_into_sections"]

EMBEDDED_NAME = "pydoc_data.topics"

_SECTION_CHARACTERS = 8000
_SECTIONS = 20


def read_documents(path: Path | str | None = None) -> list[str]:
    """Read every document under a path; a single one is cut into sections.

    Args:
        path: A `.txt` or `.jsonl` file, a folder of them, or None for the embedded text (its
            wording differs a little between Python versions).

    Raises:
        ValueError: If the path is missing, is of another kind, holds no text, is not UTF-8, or a
            line of a `.jsonl` file is not an object with a `"text"` string.
    """
    documents = _embedded() if path is None else _read(Path(path))
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise ValueError(f"data must hold some text; {str(path)!r} is empty.")
    return split_into_sections(documents[0]) if len(documents) == 1 else documents


def split_into_sections(text: str) -> list[str]:
    """Cut one text at blank lines, or at line ends where it has no blank line inside.

    Paragraphs are gathered until a section has min(8000, len(text) / 20) characters, so that a
    long text gives sections of some pages, and a short one about 20 sections. Joined, the
    sections are the text again. A text of a single line stays whole.

    Args:
        text: The text to cut.
    """
    sections = _gather(text, ends_section=lambda line: not line.strip())
    return sections if len(sections) > 1 else _gather(text, ends_section=lambda line: True)


def _gather(text: str, *, ends_section: Callable[[str], bool]) -> list[str]:
    enough = min(_SECTION_CHARACTERS, len(text) / _SECTIONS)
    sections: list[str] = []
    lines: list[str] = []
    size, has_words = 0, False
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        has_words = has_words or bool(line.strip())
        if has_words and size >= enough and ends_section(line):
            sections.append("".join(lines))
            lines, size, has_words = [], 0, False
    rest = "".join(lines)
    if has_words or not sections:
        return [*sections, rest]
    return [*sections[:-1], sections[-1] + rest]


def _embedded() -> list[str]:
    """The topics, each paragraph once.

    A fifth of the text stands in several topics ("compound" has all of "if", for instance). Split
    by document, it would be in the training text and the held-out text at once.
    """
    from pydoc_data.topics import topics

    seen: set[bytes] = set()
    documents = []
    for name in sorted(topics):
        paragraphs = topics[name].split("\n\n")
        new = [p for p in paragraphs if content_key(p) not in seen]
        seen.update(map(content_key, new))
        documents.append("\n\n".join(new))
    return documents


def _read(path: Path) -> list[str]:
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in _READERS and file.is_file()
        )
        if not files:
            raise ValueError(
                "data must be a folder with .txt or .jsonl files; there are none in "
                f"{str(path)!r}."
            )
        return [document for file in files for document in _read(file)]
    if not path.exists():
        raise ValueError(f"data must be an existing file or folder; {str(path)!r} is missing.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"data must be a .txt file, a .jsonl file or a folder of them; got {str(path)!r}."
        )
    return reader(path)


_READERS: dict[str, Callable[[Path], list[str]]] = {
    ".txt": lambda path: [read_text(path, name="data")],
    ".jsonl": lambda path: [
        fields["text"] for _, fields in read_json_lines(path, ["text"], name="data")
    ],
}
