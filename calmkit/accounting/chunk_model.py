"""The account of a CALM, from a dry run of each part.

Every part runs its training pass once, on a row of `context` positions without data (see
`dry_run`). Its cost is counted rather than derived. Per token, with K tokens in a chunk:

    training  = (encoder + backbone + loss of the head, forward and backward, + autoencoder's
                 encoding, forward) of a row / (context K)
    inference = (encoder + backbone, forward, of a row / context + N head samples
                 + N decodings, of them a share of the tokens) / K

Attention is thus counted at full context in both, as in the paper's Table 1. Repeated tokens are
encoded at each of their places; on CPUs, `for_each_distinct` may save some of that, by an amount
that depends on the text. Decoding includes the projection onto the vocabulary; for N >= 2
candidates (sampling below temperature 1) it dominates.

With terms beside the head's loss (`sample_terms`), the head also draws one sample of each position
and scores the pull, and the autoencoder decodes the sample, forward and backward.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, Table 1.
"""

import torch
from torch import Tensor, nn

from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.models import CALM, pooled_score

from .cost import Cost, cache_bytes_per_position, cost_of
from .dry_run import DryRun
from .results import Account, check_context, parameters_of

__all__ = ["account"]


def account(model: CALM, *, context: int) -> Account:
    """Account for a model of any size, without using its weights.

    Args:
        model: An assembled model, on any device, including the meta device.
        context: Positions in a row, at least 2.

    Raises:
        ValueError: If the context is out of range, or the work of a sample depends on the data.
    """
    check_context(context)
    if model.head.evaluations_per_sample is None:
        raise ValueError(
            "head must evaluate its network a fixed number of times for a sample to have a cost; "
            f"the number varies for {type(model.head).__name__}. Give it a solver with fixed "
            "steps."
        )
    run = DryRun()
    outline = run.outline(model).train()
    with run:
        training = _training_costs(run, outline, context)
        outline.eval()
        samples = [_sampling_flops(run, outline, count) for count in (1, 2)]
        latent = torch.zeros(1, outline.head.latent_size, dtype=_dtype(outline.autoencoder))
        starting = cost_of(run, lambda: outline.autoencoder.start_decoding(latent)).forward
        decoding = cost_of(run, lambda: outline.autoencoder.decode_tokens(latent)).forward
        cache_bytes = cache_bytes_per_position(outline.backbone)
    return Account(
        chunk_size=model.chunk_size,
        context=context,
        parameters=parameters_of(model),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        training_flops={
            part: cost.total / (context * model.chunk_size) for part, cost in training.items()
        },
        step_flops={
            part: training[part].forward / context for part in ("input_encoder", "backbone")
        },
        first_sample_flops=samples[0],
        next_sample_flops=samples[1] - samples[0],
        starting_flops=starting,
        decoding_flops=decoding - starting,
        activation_bytes={part: cost.kept_bytes for part, cost in training.items()},
        cache_bytes=cache_bytes,
    )


def _training_costs(run: DryRun, model: CALM, context: int) -> dict[str, Cost]:
    """The cost of each part of `CALM.loss`; tensors passed between parts require gradients."""
    tokens = torch.zeros(1, context, model.chunk_size, dtype=torch.long)
    real = torch.ones_like(tokens, dtype=torch.bool)
    batch = ChunkBatch(tokens, real, ((context,),))
    shape = (1, context, model.backbone.hidden_size)
    vectors = torch.zeros(shape, dtype=_dtype(model.input_encoder), requires_grad=True)
    states = torch.zeros(shape, dtype=_dtype(model.backbone), requires_grad=True)
    posteriors = []
    latents = torch.zeros(
        (1, context - 1, model.head.latent_size),
        dtype=_dtype(model.autoencoder),
        requires_grad=True,
    )

    def encode() -> Tensor:
        with torch.no_grad():
            row = model.autoencoder.encode_rows(batch)
        posteriors.append(DiagonalGaussian(row.mean[:, 1:], row.std[:, 1:]))
        if not model.cross_entropy_weight:
            return row.mean
        return model.autoencoder.token_nats(latents, tokens[:, 1:])

    def lose() -> Tensor:
        loss = model.head.loss(states[:, :-1], posteriors[0])
        if not (model.cross_entropy_weight or model.pull_weight):
            return loss
        drawn = model.head.sample(states[:, :-1], 1).squeeze(0)
        if not model.pull_weight:
            return loss + drawn.sum()
        return loss + pooled_score(drawn, posteriors[0], real[:, 1:].all(dim=-1))

    return {
        "input_encoder": cost_of(
            run, lambda: model.input_encoder(tokens, real), weights=_tensors(model.input_encoder)
        ),
        "backbone": cost_of(
            run, lambda: model.backbone(vectors), weights=_tensors(model.backbone)
        ),
        "autoencoder": cost_of(run, encode, weights=_tensors(model.autoencoder)),
        "head": cost_of(run, lose, weights=_tensors(model.head)),
    }


def _sampling_flops(run: DryRun, model: CALM, count: int) -> int:
    cond = torch.zeros(1, model.backbone.hidden_size, dtype=_dtype(model.backbone))
    with torch.no_grad():
        return cost_of(run, lambda: model.head.sample(cond, count)).forward


def _dtype(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype


def _tensors(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()]
