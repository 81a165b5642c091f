"""The embedded text: English prose that ships with CPython, `pydoc_data.topics`.

Each topic is a document. The wording differs slightly between Python versions.
"""

from collections.abc import Iterator
from pathlib import Path

from .content import content_key
from .raw import RawDocument
from .source_files import Source, find_sources

__all__ = ["EMBEDDED_NAME", "read_embedded", "sources_of"]

EMBEDDED_NAME = "pydoc_data.topics"


def sources_of(path: Path | str | None) -> list[Source]:
    """The files of a path, or the embedded text if it is None.

    Args:
        path: A file, a folder or a pattern.

    Raises:
        ValueError: As in `find_sources`.
    """
    if path is not None:
        return find_sources([path])
    from pydoc_data import topics

    return [Source(Path(topics.__file__), ".py", EMBEDDED_NAME)]


def read_embedded(source: Source, field: str) -> Iterator[RawDocument]:
    """Read the topics, with each paragraph only once.

    A fifth of the text occurs in several topics ("compound" contains all of "if", for instance).
    After a split by document it would be in both the training and the held-out text.
    """
    from pydoc_data.topics import topics

    seen: set[bytes] = set()
    for name in sorted(topics):
        paragraphs = topics[name].split("\n\n")
        new = [p for p in paragraphs if content_key(p) not in seen]
        seen.update(map(content_key, new))
        yield RawDocument(f"topic {name}", "\n\n".join(new).encode(), "value", 0)
