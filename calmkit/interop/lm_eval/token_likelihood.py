r"""The likelihood of a continuation under a softmax.

    log p(y | x) = sum_i log p(y_i | x, y_1, ..., y_{i-1})      in nats

The rows of a batch are padded on the right, which a causal model does not see.
"""

from collections.abc import Callable, Sequence

import torch

from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.models import TokenLM
from calmkit.nn import evaluation_view

__all__ = ["Pair", "continuation_log_likelihoods"]

# Token ids of a context, at least one, and of its continuation.
Pair = tuple[list[int], list[int]]


def continuation_log_likelihoods(
    model: TokenLM,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    note: Callable[[int], object] = lambda count: None,
) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation, and whether each of its tokens is the likeliest.

    Args:
        model: The model, on any device.
        pairs: Contexts and continuations.
        batch_size: Texts in a batch; those of a batch are of similar length.
        note: Receives the number of texts of each finished batch.
    """
    order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
    found: dict[int, tuple[float, bool]] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found.update(zip(rows, _of_batch(model, [pairs[i] for i in rows]), strict=True))
        note(len(rows))
    return [found[i] for i in range(len(pairs))]


@torch.no_grad()
def _of_batch(model: TokenLM, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
    model = evaluation_view(model)
    # The last token is predicted but not read.
    texts = [(a + b)[: max(1, len(a) + len(b) - 1)] for a, b in pairs]
    tokens, real, _ = chunk_prompts(texts, 1, fill_id=0)
    rows = ChunkBatch(tokens, real, ((tokens.shape[1],),) * len(pairs))
    states = model.hidden_states(rows.to(model.backbone.device))
    found = []
    for row, (context, continuation) in enumerate(pairs):
        start = len(context) - 1
        logits = model.logits(states[row, start : start + len(continuation)])
        true = torch.tensor(continuation, dtype=torch.long, device=logits.device)
        logs = logits.log_softmax(dim=-1).gather(1, true[:, None])
        found.append((float(logs.sum()), bool((logits.argmax(dim=-1) == true).all())))
    return found
