"""Profiles: how thorough a suite is, from seconds to minutes."""

import math
from dataclasses import dataclass

__all__ = ["PROFILES", "Profile", "profile_named"]


@dataclass(frozen=True)
class Profile:
    """The depth of a suite.

    Attributes:
        name: Its name.
        examples: Number of hypothesis examples per search.
        rows: Rows of a statistical check; its resolution grows with their square root.
        trains: Whether learning is tested by short trainings.
        work: Maximum number of multiplications by a weight per contract. They are counted, not
            timed, so that the same contracts run on every machine.
    """

    name: str
    examples: int
    rows: int
    trains: bool
    work: float


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("quick", examples=20, rows=5_000, trains=False, work=1e11),
        Profile("standard", examples=100, rows=20_000, trains=True, work=1e11),
        Profile("deep", examples=2_000, rows=200_000, trains=True, work=math.inf),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of a name.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {name!r}.")
    return PROFILES[name]
