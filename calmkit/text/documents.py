"""All documents of several files, in order, from any place on.

A text that is one single document cannot be held out in part: it is cut into sections, which are
then the documents.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .raw import BadInputError, RawDocument, text_of
from .readers import read_raw
from .sections import split_into_sections
from .source_files import Source

__all__ = ["DocumentStream"]


@dataclass(frozen=True)
class DocumentStream:
    """The documents of files; make one with `of_sources`.

    Attributes:
        sources: The files.
        field: The key or column of the text.
        is_single: Whether there is one document in all, which is read as its sections.
    """

    sources: Sequence[Source]
    field: str
    is_single: bool

    @classmethod
    def of_sources(cls, sources: Sequence[Source], field: str) -> "DocumentStream":
        """Read until a second document is found, a bad one perhaps.

        Args:
            sources: The files.
            field: The key or column of the text.
        """
        whole = cls(sources, field, is_single=False)
        found = (True for _, raw in whole.raw() if whole._text(raw) != "")
        return cls(sources, field, is_single=sum(itertools.islice(found, 2)) == 1)

    def raw(self, source: int = 0, document: int = 0) -> Iterator[tuple[int, RawDocument]]:
        """Number of the source and document, one by one, blank and bad ones too.

        Args:
            source: Number of the source to begin in.
            document: How many of that source's documents to leave out.
        """
        for number in range(source, len(self.sources)):
            begin = document if number == source else 0
            found = read_raw(self.sources[number], self.field)
            if self.is_single:
                found = itertools.chain.from_iterable(map(self._sections, found))
            for raw in itertools.islice(found, begin, None):
                yield number, raw

    def texts(self, *, only_good: bool = False) -> Iterator[str]:
        """The text of each document that is not blank.

        Args:
            only_good: Leave bad documents out.

        Raises:
            BadInputError: If one cannot be read.
        """
        for _, raw in self.raw():
            text = self._text(raw)
            if text is None and not only_good:
                text_of(raw, self.field)  # says what is wrong
            if text:
                yield text

    def _text(self, raw: RawDocument) -> str | None:
        """The text, empty if it is blank; None if the document is bad."""
        try:
            text = text_of(raw, self.field)
        except BadInputError:
            return None
        return text if text.strip() else ""

    def _sections(self, raw: RawDocument) -> Iterator[RawDocument]:
        text = self._text(raw)
        if not text:
            yield raw
            return
        for number, section in enumerate(split_into_sections(text)):
            place = f"section {number} of {raw.place}"
            yield RawDocument(place, section.encode(), "value", raw.position)
