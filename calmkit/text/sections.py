"""Cuts a single text into sections of a few pages, which serve as documents."""

from collections.abc import Callable

__all__ = ["split_into_sections"]

_SECTION_CHARACTERS = 8000
_SECTIONS = 20


def split_into_sections(text: str) -> list[str]:
    """Cut one text at blank lines, or at line ends if there is no blank line inside.

    Paragraphs are collected until a section has min(8000, len(text) / 20) characters. A long text
    thus has sections of a few pages, and a short one about 20 sections. Concatenating the sections
    restores the text. A text of a single line is not cut.
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
