"""What fine-tuning brings: scores on held-out prompts, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from calmkit.models import LanguageModel
from calmkit.pairs import TokenPair

__all__ = ["FinetuningResult", "PairScores", "reproduced"]


@dataclass(frozen=True)
class PairScores:
    """How well a model knows the held-out responses.

    Attributes:
        loss: The head's own loss on their chunks; lower is better.
        reproduced: Share of the prompts after which it writes exactly the response.
    """

    loss: float
    reproduced: float


@dataclass(frozen=True)
class FinetuningResult:
    """The result of one fine-tuning.

    Attributes:
        name: Name of the file of pairs.
        digest: SHA-256 of that file.
        pairs: How many were trained on.
        held_out_pairs: How many were not.
        seed: Seed of everything that was drawn.
        before: Scores of the model that was loaded.
        after: Scores of the model that was saved.
        training_seconds: Time in training steps alone.
    """

    name: str
    digest: str
    pairs: int
    held_out_pairs: int
    seed: int
    before: PairScores
    after: PairScores
    training_seconds: float

    def __str__(self) -> str:
        """Two lines to print."""
        return (
            f"{self.name}: {self.pairs} pairs learnt in {self.training_seconds:.0f} s, "
            f"{self.held_out_pairs} held out\n"
            f"held out, before and after: loss {self.before.loss:.4g} and {self.after.loss:.4g}, "
            f"responses reproduced {self.before.reproduced:.0%} and {self.after.reproduced:.0%}"
        )


def reproduced(
    model: LanguageModel, pairs: Sequence[TokenPair], *, end_id: int, seed: int
) -> float:
    """Share of the pairs whose response the model writes, token by token, after the prompt.

    Args:
        model: The model, on any device; it draws at temperature 1.
        pairs: At least one pair.
        end_id: The end token, which must come right after the response.
        seed: Decides the draws.
    """
    written = model.generate(
        [pair.prompt.tolist() for pair in pairs],
        # With room for one token more: a text that goes on is no hit.
        max_new_tokens=max(len(pair.response) for pair in pairs) + 1,
        eos_id=end_id,
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )
    hits = [one.tokens == pair.response.tolist() for one, pair in zip(written, pairs, strict=True)]
    return sum(hits) / len(hits)
