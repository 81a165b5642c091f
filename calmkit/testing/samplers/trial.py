"""A sampler under test."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calmkit.sampling import SampledChunks, Sampler
from calmkit.testing.first_use import use_sampler
from calmkit.testing.samplers.box import Box, LogitBox, SelectableBox
from calmkit.testing.trial import Trial

__all__ = ["SamplerTrial"]

_MOST = 400


class SamplerTrial(Trial):
    """Builds a sampler from the keyword `temperature`, if it takes one, and calls it."""

    @property
    def tempered(self) -> bool:
        """Whether the factory takes a temperature; if not, its sampler's is 1."""
        return self.takes("temperature")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those it is tried at: whole and broken numbers of agreeing draws, and 1."""
        return (1.0, 0.7, 0.5, 1 / 3) if self.tempered else (1.0,)

    def build(self, temperature: float = 1.0) -> Sampler:
        """A new sampler."""
        keywords = {"temperature": temperature} if self.tempered else {}
        return self.call(self.factory, **keywords)

    def needs_logits(self, sampler: Sampler) -> bool:
        """Whether it refuses, by name, a black box that can only be drawn from."""
        try:
            sampler(self.box(torch.tensor([[1.0]]), logits=False), self.generator())
        except ValueError as error:
            return "logits" in str(error)
        return False

    def box(
        self,
        probabilities: Tensor,
        *,
        batch: Sequence[int] | None = None,
        chunk: int = 1,
        number: int = 1,
        logits: bool,
        selectable: bool = True,
    ) -> Box:
        """A black box of rows with given probabilities, (rows, outcomes).

        Outcome i is the chunk `i, i + 1, ...`, so that a chunk tells its outcome.
        """
        rows = len(probabilities)
        shape = (rows,) if batch is None else tuple(batch)
        generator = self.generator(number)
        if rows:
            drawn = torch.multinomial(probabilities, _MOST, replacement=True, generator=generator)
        else:
            drawn = torch.zeros(0, _MOST, dtype=torch.long)
        tokens = drawn.T[..., None] + torch.arange(chunk)
        if logits:
            return LogitBox(tokens, shape, probabilities.log())
        return SelectableBox(tokens, shape) if selectable else Box(tokens, shape)

    def choose(self, sampler: Sampler, box: Box, *, number: int = 0) -> SampledChunks:
        """What the sampler chooses, from the generator of a number."""
        return use_sampler(self, sampler, box, self.generator(number))
