"""The account of a model: what it costs, part by part."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from calmkit.bounds import check_at_least, check_in

__all__ = ["Account", "check_context", "parameters_of"]


@dataclass(frozen=True)
class Account:
    """What a model costs; mappings go from the names of its parts to numbers.

    Attributes:
        chunk_size: K, tokens in a chunk.
        context: Positions in a row.
        parameters: Parameters.
        trained_parameters: Those that have a gradient; a frozen autoencoder has none.
        training_flops: Operations per token of text, both passes.
        step_flops: Operations of reading one chunk at full context.
        first_sample_flops: Operations of drawing one latent of the next chunk.
        next_sample_flops: Operations of each further latent of the same chunk.
        starting_flops: Operations of decoding one latent, before its places are told apart.
        decoding_flops: Operations of decoding its K places after that.
        activation_bytes: Memory kept for the backward pass of one row, alone in its batch.
        cache_bytes: Memory of the cache for one position of one row.
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
        """Operations per new token, by part.

        Args:
            candidates: N, latents drawn for each chunk: 1 for plain sampling, N for the batch
                algorithm, a measured mean for samplers that draw as many as they need.
            decoded_share: Share of their tokens that is decoded; less than 1 with pruning, as
                measured.

        Raises:
            ValueError: If there is less than one candidate, or the share is no share.
        """
        check_at_least(1, candidates=candidates)
        check_in("[0, 1]", decoded_share=decoded_share)
        chunk = dict(self.step_flops)
        chunk["head"] = self.first_sample_flops + (candidates - 1) * self.next_sample_flops
        chunk["autoencoder"] = candidates * (
            self.starting_flops + decoded_share * self.decoding_flops
        )
        # A token model has neither head nor autoencoder: one softmax gives any temperature.
        return {p: flops / self.chunk_size for p, flops in chunk.items() if p in self.parameters}


def check_context(context: int) -> None:
    """Refuse a row in which nothing is predicted.

    Raises:
        ValueError: If it is shorter than two positions.
    """
    if context < 2:
        raise ValueError(f"context must be at least 2 positions to predict one; got {context}.")


def parameters_of(model: nn.Module) -> dict[str, int]:
    """Parameters of each part, each counted once, where it comes first."""
    seen: set[int] = set()
    counts = {}
    for name, part in model.named_children():
        new = {id(p): p.numel() for p in part.parameters() if id(p) not in seen}
        seen |= new.keys()
        counts[name] = sum(new.values())
    return counts
