r"""Reads all documents of a text as strings, for evaluation.

The text comes from files and folders (`calmkit.text.source_files`), or is the English prose that
ships with CPython (`calmkit.text.embedded`). Blank documents are dropped, and a single document is
cut into sections.
"""

from pathlib import Path

from calmkit.text import DocumentStream, sources_of

__all__ = ["read_documents"]


def read_documents(path: Path | str | None = None) -> list[str]:
    """Read every document under a path; a single one is cut into sections.

    Args:
        path: A file, a folder or a pattern, or None for the embedded text (its wording differs a
            little between Python versions).

    Raises:
        ValueError: If the path is missing, has another format, holds no text or cannot be read;
            names file and line.
    """
    documents = list(DocumentStream.of_sources(sources_of(path), "text").texts())
    if not documents:
        raise ValueError(f"data must hold some text; {str(path)!r} is empty.")
    return documents
