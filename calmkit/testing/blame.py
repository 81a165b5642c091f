"""A short description of an error in foreign code: the call, the error, and its source lines.

MyHead.loss(cond=float32[3, 16], target=...) raised AttributeError: 'MyHead' object has no ...
my_head.py:38, in loss: return self.helper(cond) - target.mean
my_head.py:41, in helper: return self.nett(cond)
"""

import os
import re
import sysconfig
import traceback

import beartype
import jaxtyping
import torch

import calmkit
from calmkit.testing.contract import Broken

__all__ = ["description_of"]

_MOST_LINES = 5
_MOST_LETTERS = 300
_INSTALLED = ("site-packages", "dist-packages")
_INTERMEDIATE = tuple(
    os.path.dirname(str(m.__file__)) for m in (beartype, calmkit, jaxtyping, torch)
)
_RETURNED = re.compile(
    r"return value of (?:\w+\.)*?(\w+\.\w+)\.\s*Actual value: (.*?)(?:\(torch\))?\s*"
    r"Expected type: (.*?)\.\s*--",
    re.DOTALL,
)


def description_of(error: Exception, call: str) -> str:
    """Describe an error in a sentence, with the lines of the part's files that led to it."""
    if isinstance(error, Broken):
        return f"{error}. The likely cause: {error.cause}."
    if isinstance(error, jaxtyping.TypeCheckError) and (found := _RETURNED.search(str(error))):
        name, got, wanted = (" ".join(text.split()) for text in found.groups())
        called = call.partition("(")[0]
        if called.rpartition(".")[2] == name.rpartition(".")[2]:
            name = called  # with the part's own class instead of the base class
        return f"{name} must return {wanted}, as it is annotated; got {got}."
    text = " ".join(str(error).split())
    text = text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
    summary = f"{call} raised {type(error).__name__}: {text}"
    return "\n".join([summary, *map(_line, _relevant_lines(error))])


def _relevant_lines(error: Exception) -> list[traceback.FrameSummary]:
    """The lines of the user's own files; else of a package; else the innermost line."""
    every = list(traceback.extract_tb(error.__traceback__))
    theirs = [line for line in every if not _is_intermediate(line.filename)]
    own = [line for line in theirs if not any(name in line.filename for name in _INSTALLED)]
    return (own or theirs or every[-1:])[-_MOST_LINES:]


def _is_intermediate(file: str) -> bool:
    """Whether a file belongs to calmkit, a library on its call path, or Python."""
    standard = file.startswith(sysconfig.get_path("stdlib") + os.sep)
    standard = standard and not any(name in file for name in _INSTALLED)
    return standard or file.startswith(("<", *(f"{folder}{os.sep}" for folder in _INTERMEDIATE)))


def _line(frame: traceback.FrameSummary) -> str:
    near = os.path.relpath(frame.filename)
    file = frame.filename if near.startswith(os.pardir) else near
    return f"  {file}:{frame.lineno}, in {frame.name}: {frame.line}"
