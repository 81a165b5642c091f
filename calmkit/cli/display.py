"""The progress of a run: bars on a terminal, plain lines elsewhere.

A bar shows the current loss, the speed and the time left. If the output is a file or a pipe, a
line with the same numbers is printed every ten seconds and at the end of each stage.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from calmkit.training import Progress, Speed

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Display"]

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Context manager that displays the stages of a run."""

    def __init__(self, console: "Console") -> None:
        """Create the bars; nothing is displayed yet."""
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        self.console = console
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )

    def __enter__(self) -> "Display":
        """Display bars if the console is a terminal."""
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the finished bars on the screen."""
        self._drop_idle()
        if self.console.is_terminal:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False)

    def track(self, label: str) -> Callable[[Progress], None]:
        """Announce a stage, and return a callback for each of its steps."""
        self._drop_idle()
        return self._bar(label) if self.console.is_terminal else self._lines(label)

    def _bar(self, label: str) -> Callable[[Progress], None]:
        task = self._bars.add_task(label, total=None, state="")

        def show(progress: Progress) -> None:
            self._bars.update(
                task, completed=progress.step, total=progress.steps, state=_state(progress)
            )

        return show

    def _drop_idle(self) -> None:
        """Remove the bars of stages that had no step to do, such as a training that was stored."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.remove_task(task.id)

    def _lines(self, label: str) -> Callable[[Progress], None]:
        shown = time.monotonic()
        self.note(f"{label} ...")

        def show(progress: Progress) -> None:
            nonlocal shown
            now = time.monotonic()
            if progress.step == progress.steps or now - shown >= _SECONDS_BETWEEN_LINES:
                shown = now
                self.note(f"{label}: {progress.step}/{progress.steps}, {_state(progress)}")

        return show


def _state(progress: Progress) -> str:
    loss = "" if progress.loss is None else f"loss {progress.loss:.4g}, "
    speed = "" if progress.speed is None else f"{_speed(progress.speed)}, "
    if progress.step == progress.steps:
        return f"{loss}{speed}done in {_clock(progress.steps * progress.seconds_per_step)}"
    return f"{loss}{speed}{_clock(progress.seconds_left)} left"


def _speed(speed: Speed) -> str:
    share = "" if speed.share_of_peak is None else f" ({speed.share_of_peak:.0%} of peak)"
    return f"{speed.tokens_per_second:,.0f} tokens/s{share}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
