r"""Finding equal candidates, for many rows at once, without comparing all pairs.

Every candidate has a *leader*: one candidate of its row that represents all equal ones.

On the CPU, leaders are found with a hash table: all candidates write their index into their
bucket. The last one wins and leads all those with the same key; the few with another key try
again. On other devices rows are sorted, which needs no transfer to the host. Both are exact: keys
are the tokens themselves, packed into 63 bits of an int64 whatever their own dtype is. Where they
do not fit, the indices of leaders replace the tokens.
"""

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

__all__ = ["count_copies", "leaders_of", "leaders_of_keys"]

_WORD = 63
# Odd and near 2^64 divided by the golden ratio: different keys have different products, whose
# high bits depend on all bits of the key.
_GOLDEN = 0x9E3779B97F4A7C15
# Logarithm of the buckets per candidate: few enough for the table to stay in the cache.
_SPARE_BITS = 2


def count_copies(
    leaders: Int[Tensor, "rows candidates"], valid: Bool[Tensor, "rows candidates"] | None = None
) -> Int[Tensor, "rows candidates"]:
    """The number of candidates that each candidate leads; 0 for those that do not lead.

    Args:
        leaders: From `leaders_of`.
        valid: False at candidates that do not count; all count if None.
    """
    ones = torch.ones_like(leaders) if valid is None else valid.to(leaders.dtype)
    return torch.zeros_like(leaders).scatter_add_(-1, leaders, ones)


def leaders_of(
    candidates: Integer[Tensor, "candidates rows chunk"],
) -> Int[Tensor, "rows candidates"]:
    """The leader of each candidate, as an index within the row.

    Args:
        candidates: Vectors of any integers.
    """
    candidates = candidates.long()
    number, rows, size = candidates.shape
    if candidates.numel() == 0:
        return candidates.new_zeros(rows, number)
    number_bits, bits = number.bit_length(), _WORD
    if candidates.device.type == "cpu":
        # Reading the largest token is free here; elsewhere the host would have to wait.
        low, high = (int(x) for x in candidates.aminmax())
        bits = max((high - low).bit_length(), 1)
    if bits * size <= _WORD:
        return leaders_of_keys(_packed(candidates, bits))
    # Replace tokens by the indices of leaders, and pack as many into a key as fit.
    columns = [leaders_of_keys(column.T.contiguous()) for column in candidates.unbind(dim=-1)]
    together = _WORD // number_bits
    while len(columns) > 1:
        parts = [columns[i : i + together] for i in range(0, len(columns), together)]
        columns = [
            leaders_of_keys(_packed(torch.stack(part, -1), number_bits).T) for part in parts
        ]
    return columns[0]


def _packed(vectors: Tensor, bits: int) -> Tensor:
    """One integer for each vector, with the first two axes exchanged.

    Different vectors have different integers if no two elements differ by 2^bits or more.
    """
    first, *others = vectors.unbind(dim=-1)
    for place, column in enumerate(others, start=1):
        first = torch.add(first, column, alpha=1 << bits * place)
    return first.T.contiguous()


def leaders_of_keys(keys: Int[Tensor, "rows candidates"]) -> Int[Tensor, "rows candidates"]:
    """Like `leaders_of`, for candidates that are one int64 each."""
    if keys.numel() == 0:
        return torch.zeros_like(keys)
    return _by_hashing(keys) if keys.device.type == "cpu" else _by_sorting(keys)


def _by_sorting(keys: Tensor) -> Tensor:
    ordered, order = keys.sort(dim=-1)
    place = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
    starts = torch.ones_like(keys, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(starts, place, 0).cummax(dim=-1).values
    return torch.empty_like(order).scatter_(-1, order, order.gather(-1, first))


def _by_hashing(keys: Tensor) -> Tensor:
    rows, number = keys.shape
    bits = number.bit_length() + _SPARE_BITS
    row = torch.arange(rows)[:, None]
    # The high bits of the product modulo 2^64 (signed), offset into the table of each row.
    bucket = (keys * (_GOLDEN - 2**64)).bitwise_right_shift_(64 - bits)
    bucket = bucket.add_((row << bits) + (1 << bits >> 1)).flatten()
    keys = keys.flatten()
    table = torch.empty(rows << bits, dtype=torch.long)
    leader = table.scatter_(0, bucket, torch.arange(len(keys))).gather(0, bucket)
    left = (keys.gather(0, leader) != keys).nonzero().flatten()
    while len(left):
        winner = table.scatter_(0, bucket[left], left).gather(0, bucket[left])
        leader[left] = winner
        left = left[keys[winner] != keys[left]]
    return leader.view(rows, number).sub_(number * row)
