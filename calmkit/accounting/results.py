"""The account of a model: its cost, part by part."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from calmkit.bounds import check_at_least, check_in

__all__ = ["Account", "check_context", "parameters_of"]


@dataclass(frozen=True)
class Account:
    """The cost of a model; mappings are keyed by the names of its parts.

    Attributes:
        chunk_size: K, tokens in a chunk.
        context: Positions in a row.
        parameters: Number of parameters.
        trained_parameters: Number of parameters with gradients, without a frozen autoencoder.
        training_flops: FLOPs per token of text, forward and backward pass.
        step_flops: FLOPs of reading one chunk at full context.
        first_sample_flops: FLOPs of drawing one latent of the next chunk.
        next_sample_flops: FLOPs of each further latent of the same chunk.
        starting_flops: FLOPs of the part of decoding that is shared by all places of a latent.
        decoding_flops: FLOPs of decoding its K places after that.
        activation_bytes: Memory saved for the backward pass with a single row in the batch.
        cache_bytes: Memory of the cache per position and row.
    """

    chunk_size: int
    context: int
    parameters: Mapping[str, int]
    trained_parameters: int
    training_flops: Mapping[str, float]
    step_flops: Mapping[str, float]
    first_sample_flops: int
    next_sample_flops: int
    starting_flops: int
    decoding_flops: int
    activation_bytes: Mapping[str, int]
    cache_bytes: int

    def inference_flops(
        self, candidates: float = 1.0, decoded_share: float = 1.0
    ) -> dict[str, float]:
        """FLOPs per new token, by part.

        Args:
            candidates: Latents drawn per chunk: 1 for plain sampling, N for the batch algorithm,
                a measured mean for samplers with a variable number of draws.
            decoded_share: Share of their tokens that are decoded; with pruning, a measured share
                below 1.

        Raises:
            ValueError: If `candidates` is below 1, or `decoded_share` is not in [0, 1].
        """
        check_at_least(1, candidates=candidates)
        check_in("[0, 1]", decoded_share=decoded_share)
        chunk = dict(self.step_flops)
        chunk["head"] = self.first_sample_flops + (candidates - 1) * self.next_sample_flops
        chunk["autoencoder"] = candidates * (
            self.starting_flops + decoded_share * self.decoding_flops
        )
        # A token model has neither head nor autoencoder; one softmax serves any temperature.
        return {p: flops / self.chunk_size for p, flops in chunk.items() if p in self.parameters}


def check_context(context: int) -> None:
    """Refuse a row without predictions, shorter than two positions."""
    if context < 2:
        raise ValueError(f"context must be at least 2 positions to predict one; got {context}.")


def parameters_of(model: nn.Module) -> dict[str, int]:
    """Number of parameters by part; a shared parameter counts in the first part only."""
    seen: set[int] = set()
    counts = {}
    for name, part in model.named_children():
        new = {id(p): p.numel() for p in part.parameters() if id(p) not in seen}
        seen |= new.keys()
        counts[name] = sum(new.values())
    return counts
