"""How far a folder under preparation has come, so that a killed run can go on.

    DIR/.preparing/plan.json     what was asked for: the options, the sources with their digests
                   state.json    what is written and flushed; replaced in one step

Both are gone when the folder is whole. What is written behind the last note does not count.
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
    """How far a folder has come.

    Attributes:
        below: Of the rule by hash; None until the text was surveyed, and with given held-out text.
        surveyed: Whether the rule is known and the tokenizer written.
        source: Number of the source to go on in.
        document: How many of its documents are done.
        sides: What is written.
        documents: How many were taken from each source.
        copies: Documents left out since they are held out too.
        bad: How many were bad.
        first_bad: What was wrong with the first of them.
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
    """The notes on one folder."""

    def __init__(self, folder: Path) -> None:
        """Take a folder, which may have no notes yet."""
        self._work = folder / WORK_FOLDER

    def begin(self, plan: Mapping[str, Any]) -> State:
        """Begin, or go on where another run of the same plan stopped.

        Args:
            plan: Whatever shapes the result, by the name of the option, as JSON has it.

        Raises:
            ValueError: If the folder was begun with another plan; names the option.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        if not (path := self._work / "plan.json").exists():
            replace_file(path, json.dumps(plan, indent=1))
            return State()
        check_same_plan(plan, json.loads(path.read_text("utf-8")), self._work.parent)
        if not (path := self._work / "state.json").exists():
            return State()
        found = json.loads(path.read_text("utf-8"))
        found["sides"] = {side: Done(**done) for side, done in found["sides"].items()}
        found["documents"] = {int(number): n for number, n in found["documents"].items()}
        return State(**found)

    def note(self, state: State) -> None:
        """Note what is written; its files must have been flushed.

        Args:
            state: All of it.
        """
        replace_file(self._work / "state.json", json.dumps(dataclasses.asdict(state)))

    def remove(self) -> None:
        """The folder is whole: no notes are needed."""
        shutil.rmtree(self._work, ignore_errors=True)


def check_same_plan(wanted: Mapping[str, Any], begun: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other options.

    Args:
        wanted: The plan of now.
        begun: The plan of the folder.
        folder: Where it lies.

    Raises:
        ValueError: If they differ; names the first option.
    """
    for name in [*begun, *wanted]:
        old, new = begun.get(name), wanted.get(name)
        if isinstance(old, list) and isinstance(new, list):
            old, new = _first_difference(old, new)
        if old == new:
            continue
        raise ValueError(
            f"{name} must be as it was when {folder} was begun, {old!r}; got {new!r}. Give the "
            "same again to go on, or choose another output."
        )


def _first_difference(old: list[Any], new: list[Any]) -> tuple[Any, Any]:
    """The first entries that differ: of files in their size or digest, not in their name."""
    for one, other in zip(old, new, strict=False):
        if one != other and not (isinstance(one, list) and one[1:] == other[1:]):
            return one, other
    return (f"{len(old)} files", f"{len(new)} files")
