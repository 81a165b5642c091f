"""The default of a warm-up in a run that is shorter than its preset's: the same share of it.

A preset sets the steps of a training with a warm-up to match. If the user sets fewer steps and no
warm-up, W of S steps become round(W s / S) of s. In a longer run W stays. A warm-up that the user
has set stays as well, and is refused if it does not fit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calmkit.schema import Source, loaded

__all__ = ["shortened_warmups"]

_TRAININGS = ("autoencoder_training", "training")


@dataclass
class _Schedule:
    """What the presets say, and what the user.

    Attributes:
        steps: Steps of the run.
        planned: Steps that the warm-up was set for.
        warmup: The warm-up of a preset; None if the user has set one.
    """

    steps: Any = None
    planned: Any = None
    warmup: Any = None

    def add(self, settings: Mapping[str, Any], *, is_preset: bool) -> None:
        """Lay settings over the ones so far."""
        if "steps" in settings:
            self.steps = loaded(settings["steps"])
            self.planned = self.steps if is_preset else self.planned
        if "warmup_steps" in settings:
            self.warmup = loaded(settings["warmup_steps"]) if is_preset else None

    def shortened(self) -> int | None:
        """The warm-up of a shorter run; None if it stays. Wrong values are refused elsewhere."""
        values = (self.steps, self.planned, self.warmup)
        if all(type(value) is int for value in values) and 0 < self.steps < self.planned:
            return round(self.warmup * self.steps / self.planned)
        return None


def shortened_warmups(layers: Sequence[Source], options: Sequence[str]) -> list[Source]:
    """The warm-ups of runs for which the user has set fewer steps, and no warm-up.

    Args:
        layers: Configs in the order of merging.
        options: As `--key=value`.

    Returns:
        One layer to put over the others, or none.
    """
    given = Source.of_options(options).values
    changed = {}
    for key in _TRAININGS:
        schedule = _Schedule()
        for layer in layers:
            schedule.add(_mapping(layer.values.get(key)), is_preset=layer.is_preset)
        for settings in _of_options(given, key):
            schedule.add(settings, is_preset=False)
        if (warmup := schedule.shortened()) is not None:
            changed[key] = {"warmup_steps": warmup}
    return [Source("warm-up of a shorter run", changed)] if changed else []


def _of_options(given: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    for option, value in given.items():
        if option == key:
            yield _mapping(loaded(value))
        elif option.startswith(f"{key}."):
            yield {option.removeprefix(f"{key}."): value}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
