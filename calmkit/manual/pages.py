"""Pages of options, as text of at most 100 columns."""

import textwrap
from collections.abc import Sequence

from .stated_options import Option

__all__ = ["page", "two_columns"]

_WIDTH = 99
_COLUMN = 30


def page(options: Sequence[Option], *, prefix: str = "", title: str = "") -> str:
    """A title and one entry for each option: its name, type, description and default.

    Args:
        options: The options.
        prefix: What stands in front of each name, such as `head.`.
        title: The title of the group.
    """
    entries = [(f"--{prefix}{one.name} {one.kind}".rstrip(), _text(one)) for one in options]
    return two_columns(entries, title=title)


def two_columns(entries: Sequence[tuple[str, str]], *, title: str = "") -> str:
    """Names on the left, their descriptions on the right.

    Args:
        entries: Names and descriptions.
        title: A line above.
    """
    lines = [title] if title else []
    for name, text in entries:
        left = f"  {name}"
        wrapped = textwrap.wrap(text, _WIDTH - _COLUMN, break_on_hyphens=False) or [""]
        if len(left) > _COLUMN - 2:
            lines.append(left)
            left = ""
        lines.append(f"{left:{_COLUMN}}{wrapped[0]}".rstrip())
        lines += [" " * _COLUMN + line for line in wrapped[1:]]
    return "\n".join(lines) + "\n"


def _text(option: Option) -> str:
    state = "required" if option.default is None else f"default: {option.default}"
    return f"{option.text} ({state})".lstrip()
