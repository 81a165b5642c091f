"""The progress of a folder under preparation, from which a killed run can resume.

    DIR/.preparing/plan.json     the request: the options, the sources with their digests
                   state.json    the data written and flushed; replaced atomically

Both are removed when the folder is complete. Data written after the last record is discarded.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calmkit.files import replace_file

from .shards import Done

__all__ = ["WORK_FOLDER", "Journal", "State", "check_same_plan"]

WORK_FOLDER = ".preparing"


@dataclass
class State:
    """The progress of a folder.

    Attributes:
        below: `ByHash.below`; None before the survey, or if held-out text is given.
        surveyed: Whether the rule is known and the tokenizer written.
        source: Index of the source to resume in.
        document: Number of its documents that are done.
        sides: Progress of each side.
        documents: Number of documents taken from each source.
        copies: Documents dropped because they are in the held-out text.
        bad: Number of bad documents.
        first_bad: Error messages of the first bad documents.
    """

    below: int | None = None
    surveyed: bool = False
    source: int = 0
    document: int = 0
    sides: dict[str, Done] = field(default_factory=lambda: {"train": Done(), "validation": Done()})
    documents: dict[int, int] = field(default_factory=dict)
    copies: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)


class Journal:
    """The recorded progress of one folder."""

    def __init__(self, folder: Path) -> None:
        """Store the folder, which may have no journal yet."""
        self._work = folder / WORK_FOLDER

    def begin(self, plan: Mapping[str, Any]) -> State:
        """Start, or resume where another run of the same plan stopped.

        Args:
            plan: Every option that affects the result, by name, as JSON values.

        Raises:
            ValueError: If something was written by another plan; names the option.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        asked, noted = self._work / "plan.json", self._work / "state.json"
        if not noted.exists():  # nothing is written that another plan could not replace
            replace_file(asked, json.dumps(plan, indent=1))
            return State()
        check_same_plan(plan, json.loads(asked.read_text("utf-8")), self._work.parent)
        found = json.loads(noted.read_text("utf-8"))
        found["sides"] = {side: Done(**done) for side, done in found["sides"].items()}
        found["documents"] = {int(number): n for number, n in found["documents"].items()}
        return State(**found)

    def note(self, state: State) -> None:
        """Record the written data, whose files must have been flushed."""
        replace_file(self._work / "state.json", json.dumps(dataclasses.asdict(state)))

    def remove(self) -> None:
        """Delete the journal of a complete folder."""
        shutil.rmtree(self._work, ignore_errors=True)


def check_same_plan(wanted: Mapping[str, Any], begun: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume with other options.

    Args:
        wanted: The plan of this run.
        begun: The plan of the folder.
        folder: The folder.

    Raises:
        ValueError: If the plans differ; names the first differing option.
    """
    for name in [*begun, *wanted]:
        old, new = begun.get(name), wanted.get(name)
        if isinstance(old, list) and isinstance(new, list):
            old, new = _first_difference(old, new)
        if old == new:
            continue
        raise ValueError(
            f"{name} must be as it was when {folder} was begun, {old!r}; got {new!r}. Use the "
            "same value to resume, or choose another output."
        )


def _first_difference(old: list[Any], new: list[Any]) -> tuple[Any, Any]:
    """The first entries that differ; files differ by size or digest, not by name.

    Names that differ say enough; under the same name, size and digest are shown.
    """
    for one, other in zip(old, new, strict=False):
        if one != other and not (isinstance(one, list) and one[1:] == other[1:]):
            is_named = isinstance(one, list) and isinstance(other, list) and one[0] != other[0]
            return (one[0], other[0]) if is_named else (one, other)
    return (f"{len(old)} files", f"{len(new)} files")
