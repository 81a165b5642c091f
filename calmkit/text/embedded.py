"""The text that is always there: English prose shipped with CPython, `pydoc_data.topics`.

A document for each topic. Its wording differs a little between Python versions.
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
    """The topics, each paragraph once.

    A fifth of the text stands in several topics ("compound" has all of "if", for instance). Split
    by document, it would be in the training text and the held-out text at once.
    """
    from pydoc_data.topics import topics

    seen: set[bytes] = set()
    for name in sorted(topics):
        paragraphs = topics[name].split("\n\n")
        new = [p for p in paragraphs if content_key(p) not in seen]
        seen.update(map(content_key, new))
        yield RawDocument(f"topic {name}", "\n\n".join(new).encode(), "value", 0)
