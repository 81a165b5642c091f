"""An input encoder under test."""

import torch
from torch import Tensor, nn

from calmkit.models import InputEncoder
from calmkit.testing.trial import Trial

__all__ = ["CHUNK", "HIDDEN", "VOCAB", "EncoderTrial"]

VOCAB = 11
CHUNK = 3
HIDDEN = 8


class EncoderTrial(Trial):
    """Builds an input encoder from `(vocab_size, chunk_size, hidden_size)` and calls it."""

    def build(self, number: int = 0) -> InputEncoder:
        """A new encoder in evaluation mode; two of one number are equal."""
        return self.built(InputEncoder, VOCAB, CHUNK, HIDDEN, number=number).eval()

    def whole(self, encoder: InputEncoder) -> nn.ModuleList:
        """The encoder with the autoencoder that it reads, which is a part of the model's."""
        read = encoder.autoencoder
        return nn.ModuleList([encoder] if read is None else [encoder, read.eval()])

    def tokens(self, *batch: int, number: int = 1) -> Tensor:
        """Chunks of random tokens."""
        return torch.randint(VOCAB, (*batch, CHUNK), generator=self.generator(number))

    def vectors(self, encoder: InputEncoder, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """What is read of chunks; all of it is text if `real` is None."""
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        return self.call(encoder, tokens, real)
