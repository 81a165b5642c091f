"""A cache changes how long states take, never what they are."""

import torch

from calmkit.attention import AttentionMask
from calmkit.backbones import Cache
from calmkit.testing.backbones.trial import BackboneTrial, without_cache
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_refused, expect_same

__all__ = [
    "cache_does_not_overflow",
    "cache_excludes_a_mask",
    "cached_is_the_same",
    "ragged_rows_are_the_same",
    "selected_rows_are_apart",
]

_POSITIONS = "positions, or the mask, do not start from the cache's lengths: off by one"


@contract(applies=without_cache, searches=True)
def cached_is_the_same(trial: BackboneTrial) -> None:
    """In blocks of any lengths through a cache, every state is that of the whole row at once."""
    backbone = trial.build()

    def check(lengths: list[int]) -> None:
        x = trial.vectors(2, sum(lengths))
        with torch.no_grad():
            want = trial.states(backbone, x)
            cache = backbone.new_cache(2, sum(lengths))
            expect(
                isinstance(cache, Cache),
                seen=f"new_cache returns a {type(cache).__name__}",
                expected="an object with lengths and select",
                cause="it lacks one of the two",
            )
            parts = [trial.call(backbone, part, cache=cache) for part in x.split(lengths, dim=1)]
        than = "without a cache"
        what = f"states in blocks of {lengths}"
        expect_same(torch.cat(parts, dim=1), want, what=what, than=than, cause=_POSITIONS)
        expect(
            cache.lengths.tolist() == [sum(lengths)] * 2,
            seen=f"lengths = {cache.lengths.tolist()}",
            expected=[sum(lengths)] * 2,
            cause="the cache is not advanced, or once for each layer",
        )

    trial.search(lambda st: st.lists(st.integers(1, 4), min_size=1, max_size=5), check)


@contract(applies=without_cache)
@torch.no_grad()
def ragged_rows_are_the_same(trial: BackboneTrial) -> None:
    """Rows of different lengths, an empty one too, go on in one batch as each does alone."""
    backbone = trial.build()
    prefixes = (3, 0, 5, 1)
    x = trial.vectors(4, 8)
    cache = backbone.new_cache(4, 8)
    trial.call(backbone, x[:, :5], cache=cache)
    cache = trial.call(cache.select, torch.arange(4), torch.tensor(prefixes))
    rest = torch.stack([x[row, start : start + 3] for row, start in enumerate(prefixes)])
    got = torch.cat([trial.call(backbone, part, cache=cache) for part in rest.split((2, 1), 1)], 1)
    for row, start in enumerate(prefixes):
        alone = backbone(x[row : row + 1, : start + 3])[0, start:]
        what = f"states that follow a prefix of {start}"
        expect_same(got[row], alone, what=what, than="of the row alone", cause=_POSITIONS)


@contract(applies=without_cache)
@torch.no_grad()
def selected_rows_are_apart(trial: BackboneTrial) -> None:
    """Rows copied from a cache go on by themselves, and leave the old cache as it was."""
    backbone = trial.build()
    x, new = trial.vectors(1, 4), trial.vectors(3, 2, number=2)
    cache = backbone.new_cache(1, 6)
    trial.call(backbone, x, cache=cache)
    kept = (4, 4, 2)
    branches = trial.call(cache.select, torch.tensor([0, 0, 0]), torch.tensor(kept))
    got = trial.call(backbone, new, cache=branches)
    for row, length in enumerate(kept):
        alone = backbone(torch.cat([x[0, :length], new[row]])[None])[0, length:]
        what = f"states of a copy cut to {length}"
        cause = "copies share memory, or rows are not cut to their lengths"
        expect_same(got[row], alone, what=what, than="of that row alone", cause=cause)
    got = trial.call(backbone, new[:1], cache=cache)
    want = backbone(torch.cat([x, new[:1]], dim=1))[:, 4:]
    cause = "`select` hands out views: its copies write into the old cache"
    expect_same(got, want, what="states of the old cache", than="of the row alone", cause=cause)


@contract(applies=without_cache)
def cache_excludes_a_mask(trial: BackboneTrial) -> None:
    """Mask and cache together are refused: a cache is always causal."""
    backbone = trial.build()
    cache = backbone.new_cache(1, 1)
    vectors, mask = trial.vectors(1, 1), AttentionMask.causal()
    rule = "mask and cache exclude each other"
    expect_refused(trial, backbone, vectors, mask, cache, naming="mask|cache", rule=rule)


@contract(applies=without_cache)
@torch.no_grad()
def cache_does_not_overflow(trial: BackboneTrial) -> None:
    """More positions than the cache's capacity are refused."""
    backbone = trial.build()
    cache = backbone.new_cache(1, 2)
    trial.call(backbone, trial.vectors(1, 2), cache=cache)
    rule = "the cache holds its capacity and no more"
    vectors = trial.vectors(1, 1)
    expect_refused(trial, backbone, vectors, None, cache, naming="capacity|cache", rule=rule)
