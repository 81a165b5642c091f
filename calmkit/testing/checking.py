"""`check_part`: a part's suite in one call, without pytest."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from calmkit.testing.calls import name_of
from calmkit.testing.kinds import suite_of
from calmkit.testing.profiles import profile_named
from calmkit.testing.report import Report
from calmkit.testing.running import PartUnderTest

__all__ = ["check_part"]

_LOG = logging.getLogger("calmkit.testing")
_NO_EXEMPTIONS: Mapping[str, str] = {}


def check_part(
    kind: str,
    factory: Callable[..., Any],
    *,
    exempt: Mapping[str, str] = _NO_EXEMPTIONS,
    only: Iterable[str] | None = None,
    profile: str = "standard",
    seed: int = 0,
) -> Report:
    """Run every contract of a kind on a part.

    Each contract is logged by `calmkit.testing` (`INFO`) when it begins.

    Args:
        kind: `head`, `rule`, `kernel`, `noise`, `solver`, `sampler`, `autoencoder`,
            `input_encoder`, `backbone` or `attention`.
        factory: Builds the part from the shared sizes of its kind, as a config does: a head from
            `(cond_size, latent_size)`, an autoencoder from `(chunk_size, vocab_size,
            latent_size)`, an input encoder from `(vocab_size, chunk_size, hidden_size)`, a
            backbone from `(hidden_size)`, and the others without arguments. A sampler receives
            the keyword `temperature`, a solver `steps` and a kernel `bandwidths`, if it accepts
            them. The class itself is often a valid factory.
        exempt: Names of contracts that this part need not fulfil, each with a reason. An exempt
            contract that holds is a failure.
        only: Names of the contracts to run; all if None.
        profile: `quick`, `standard` or `deep`.
        seed: The same seed repeats a run.

    Raises:
        ValueError: If a kind, a profile or the name of a contract is unknown, or no contract is
            left to run.
        ImportError: If hypothesis is not installed.
    """
    suite = suite_of(kind)
    part = PartUnderTest(suite, factory, profile_named(profile), seed, dict(exempt))
    chosen = suite.contracts if only is None else suite.only(set(only))
    results = []
    for number, contract in enumerate(chosen, 1):
        _LOG.info("%d of %d: %s", number, len(chosen), contract.name)
        results.append(part.run(contract)[0])
    if part.first[0].status == "failed" and suite.contracts[0] not in chosen:
        results.insert(0, part.first[0])  # why the others were not run
    return Report(kind, name_of(factory), profile, seed, tuple(results))
