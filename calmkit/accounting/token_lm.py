"""The account of a TokenLM: like that of a CALM, but with a softmax for head and autoencoder.

Candidates cost nothing, since one softmax gives the distribution at every temperature.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from calmkit.models import TokenLM

from .cost import cache_bytes_per_position, cost_of
from .dry_run import DryRun
from .results import Account, check_context, parameters_of

__all__ = ["account_token_lm"]


def account_token_lm(model: TokenLM, *, context: int) -> Account:
    """Account for a model over tokens; see `account`.

    Args:
        model: The model, on any device; it is not changed.
        context: Tokens in a row, at least 2.

    Raises:
        ValueError: If the context is out of range.
    """
    check_context(context)
    run = DryRun()
    outline = run.outline(model).train()
    dtype = outline.output.weight.dtype
    with run:
        tokens = torch.zeros(1, context, 1, dtype=torch.long)
        real = torch.ones_like(tokens, dtype=torch.bool)
        shape = (1, context, model.backbone.hidden_size)
        vectors, states = (torch.zeros(shape, dtype=dtype, requires_grad=True) for _ in range(2))

        def loss() -> Tensor:
            logits = outline.logits(states[:, :-1])
            return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")

        weights = list(outline.parameters())
        training = {
            "input_encoder": cost_of(
                run, lambda: outline.input_encoder(tokens, real), weights=weights
            ),
            "backbone": cost_of(run, lambda: outline.backbone(vectors), weights=weights),
            "output": cost_of(run, loss, weights=weights),
        }
        step = {part: training[part].forward / context for part in ("input_encoder", "backbone")}
        step["output"] = float(cost_of(run, lambda: outline.logits(states[:, -1])).forward)
        cache_bytes = cache_bytes_per_position(outline.backbone)
    return Account(
        chunk_size=1,
        context=context,
        parameters=parameters_of(model),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        training_flops={part: cost.total / context for part, cost in training.items()},
        step_flops=step,
        first_sample_flops=0,
        next_sample_flops=0,
        starting_flops=0,
        decoding_flops=0,
        activation_bytes={part: cost.kept_bytes for part, cost in training.items()},
        cache_bytes=cache_bytes,
    )
