"""`check_part`: a part's suite in one call, without pytest."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from calmkit.testing.calls import name_of
from calmkit.testing.kinds import suite_of
from calmkit.testing.profiles import profile_named
from calmkit.testing.report import Report
from calmkit.testing.running import PartUnderTest

__all__ = ["check_part"]

_NOTHING: Mapping[str, str] = {}


def check_part(
    kind: str,
    factory: Callable[..., Any],
    *,
    exempt: Mapping[str, str] = _NOTHING,
    only: Iterable[str] | None = None,
    profile: str = "standard",
    seed: int = 0,
) -> Report:
    """Run every contract of a kind on a part.

    Args:
        kind: `head`, `rule`, `kernel`, `noise`, `solver`, `sampler`, `autoencoder`,
            `input_encoder`, `backbone` or `attention`.
        factory: Builds the part from the sizes that its kind shares, as a config does: a head from
            `(cond_size, latent_size)`, an autoencoder from `(chunk_size, vocab_size,
            latent_size)`, an input encoder from `(vocab_size, chunk_size, hidden_size)`, a
            backbone from `(hidden_size)`, the others from nothing; a sampler from the keyword
            `temperature`, a solver from `steps` and a kernel from `bandwidths`, if they take
            them. The class itself will often do.
        exempt: Names of contracts that need not hold here, each with the reason. One that holds
            after all fails.
        only: Names of the contracts to run; all if None.
        profile: `quick`, `standard` or `deep`.
        seed: The same seed repeats a run.

    Raises:
        ValueError: If a kind, a profile or the name of a contract is unknown, or nothing would be
            left to run.
        ImportError: If hypothesis is not installed.
    """
    suite = suite_of(kind)
    part = PartUnderTest(suite, factory, profile_named(profile), seed, dict(exempt))
    chosen = suite.contracts if only is None else suite.only(set(only))
    results = [part.run(contract)[0] for contract in chosen]
    if part.first[0].status == "failed" and suite.contracts[0] not in chosen:
        results.insert(0, part.first[0])  # why the others were not run
    return Report(kind, name_of(factory), profile, seed, tuple(results))
