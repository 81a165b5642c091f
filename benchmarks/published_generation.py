"""The published sampling at a temperature, written plainly (arXiv 2510.27688).

The state is copied to each of the N candidates before the head, the logits of all candidates are
computed at once, and a `Counter` per row says which chunks agree. Weights of the networks, hence
the candidates of the same noise, are those of the parts that it is compared with.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from energy_head_cost import LiteralEnergyHead
from torch import Generator, Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.heads import EnergyHead
from calmkit.models import CALM

__all__ = ["PublishedDraw", "choose_with_counter", "counter_weights", "published_generate"]

Chunk = tuple[int, ...]


def counter_weights(chunks: Sequence[Chunk], power: int) -> dict[Chunk, int]:
    """C(c, m) for each chunk that occurs c >= m times, with the largest m <= power that does."""
    counts = Counter(chunks)
    for m in range(power, 0, -1):
        weights = {chunk: math.comb(c, m) for chunk, c in counts.items() if c >= m}
        if weights:
            return weights
    raise ValueError("chunks must hold at least one chunk; got none.")


def choose_with_counter(candidates: Tensor, power: int, rng: random.Random) -> Tensor:
    """One chunk for each row of candidates (N, rows, K), row after row."""
    chosen = []
    for row in candidates.unbind(dim=1):
        # One row's lists at a time: those of all rows keep the garbage collector busy.
        weights = counter_weights([tuple(chunk) for chunk in row.tolist()], power)
        chosen += rng.choices(list(weights), weights=list(weights.values()))
    return torch.tensor(chosen, device=candidates.device)


@dataclass(frozen=True)
class PublishedDraw:
    """Head and decoder as they are asked for candidates.

    Attributes:
        head: The published head.
        autoencoder: Decodes.
        noise_size: Of the head's noise, uniform on [-1/2, 1/2].
    """

    head: LiteralEnergyHead
    autoencoder: ChunkAutoencoder
    noise_size: int

    @classmethod
    def of(cls, head: EnergyHead, autoencoder: ChunkAutoencoder) -> "PublishedDraw":
        """With the weights of these parts."""
        literal = LiteralEnergyHead(head).to(head.noise_embedding.weight)
        return cls(literal, autoencoder, head.noise_size)

    @torch.no_grad()
    def __call__(self, states: Tensor, n: int, generator: Generator) -> Tensor:
        """Candidates (n, rows, K) after states (rows, hidden)."""
        shape = (n, len(states), self.noise_size)
        noise = torch.rand(shape, generator=generator, device=states.device, dtype=states.dtype)
        latents = self.head.sample_from(states, noise - 0.5)
        return self.autoencoder.decode(latents).argmax(dim=-1)


@torch.no_grad()
def published_generate(
    model: CALM,
    draw: PublishedDraw,
    prompts: Tensor,
    *,
    new_chunks: int,
    power: int,
    candidates: int,
    generator: Generator,
) -> Tensor:
    """Continue prompts (rows, positions, K) with a cache of keys and values, chunk by chunk."""
    rng = random.Random(0)
    cache = model.backbone.new_cache(len(prompts), prompts.shape[1] + new_chunks)
    chunks, text = prompts, []
    for _ in range(new_chunks):
        vectors = model.input_encoder(chunks, torch.ones_like(chunks, dtype=torch.bool))
        state = model.backbone(vectors, cache=cache)[:, -1]
        drawn = draw(state, candidates, generator)
        chunk = drawn[0] if candidates == 1 else choose_with_counter(drawn, power, rng)
        chunks = chunk[:, None]
        text.append(chunk)
    return torch.stack(text, dim=1)
