"""One model from text to numbers: prepared, trained, saved, measured, and put to use."""

from .run_result import RunResult as RunResult
