"""A model's next chunk as a black box for samplers.

Candidates are stored as latents until a sampler needs one of their tokens, and rows can be
selected, so that unused tokens cost nothing; see `calmkit.sampling.undecoded`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.finite import require_finite
from calmkit.heads import Head
from calmkit.typing import typed

__all__ = ["ChunkDraws", "draw_latents"]

# Latents whose decoding starts together; bounds the temporary memory.
_STARTED_AT_ONCE = 4096


def draw_latents(
    head: Head, states: Tensor, num_samples: int, generator: torch.Generator | None
) -> Tensor:
    """Draw finite latents (samples, *batch, latent) for decoding.

    Raises:
        NonFiniteError: If the backbone's states or the head's latents are not finite.
    """
    require_finite("states of the backbone", states)
    latents = head.sample(states, num_samples, generator)
    require_finite("latents of the head", latents)
    return latents


class ChunkDraws:
    """Draws chunks from the distribution of head and autoencoder, given states."""

    @typed
    def __init__(
        self,
        head: Head,
        autoencoder: ChunkAutoencoder,
        states: Float[Tensor, "*batch hidden"],
        generator: torch.Generator | None,
    ) -> None:
        """Store the states without drawing.

        Args:
            head: Draws latents.
            autoencoder: Decodes them.
            states: The backbone's states, one per row.
            generator: Source of the head's randomness; torch's global one if None.
        """
        self._head, self._autoencoder = head, autoencoder
        self._states, self._generator = states, generator

    @torch.no_grad()
    def __call__(self, n: int) -> Int[Tensor, "n *batch chunk"]:
        """Draw n chunks of every row."""
        return self._autoencoder.decode_tokens(self._latents(n))

    @torch.no_grad()
    def undecoded(self, n: int) -> "LatentChunks":
        """Draw n chunks of every row, as latents."""
        return LatentChunks.of(self._autoencoder, self._latents(n))

    def select(self, rows: Int[Tensor, " chosen"]) -> "ChunkDraws":
        """The same for some rows of the flattened batch."""
        states = self._states.reshape(-1, self._states.shape[-1])[rows]
        return ChunkDraws(self._head, self._autoencoder, states, self._generator)

    def _latents(self, n: int) -> Tensor:
        return draw_latents(self._head, self._states, n, self._generator)


class LatentChunks:
    """Chunks whose tokens are decoded on demand.

    Attributes:
        shape: Shape of their tokens, (n, *batch, chunk).
        device: Their device.
    """

    def __init__(
        self,
        autoencoder: ChunkAutoencoder,
        started: Float[Tensor, "n *batch started"],
    ) -> None:
        """Store the part of the decoding that all places of a chunk share.

        Args:
            autoencoder: Decodes the chunks.
            started: The result of its `start_decoding`.
        """
        self.shape = (*started.shape[:-1], autoencoder.chunk_size)
        self.device = started.device
        self._autoencoder = autoencoder
        self._started = started.reshape(-1, started.shape[-1])

    @staticmethod
    def of(autoencoder: ChunkAutoencoder, latents: Tensor) -> "LatentChunks":
        """Start decoding latents (n, *batch, latent)."""
        rows = latents.reshape(-1, latents.shape[-1])
        parts = [autoencoder.start_decoding(part) for part in rows.split(_STARTED_AT_ONCE)]
        return LatentChunks(autoencoder, torch.cat(parts).view(*latents.shape[:-1], -1))

    @typed
    def tokens_at(
        self, places: range, chosen: Int[Tensor, " chosen"]
    ) -> Int[Tensor, "chosen places"]:
        """The tokens at given places of chunks, selected by index in the flattened `n *batch`."""
        return self._autoencoder.tokens_at(self._started[chosen], places)

    def joined(self, others: "LatentChunks") -> "LatentChunks":
        """Concatenate into one list, with its length as the only batch axis."""
        return LatentChunks(self._autoencoder, torch.cat([self._started, others._started]))
