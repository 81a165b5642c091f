"""Scores of a fine-tuning on held-out pairs, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from calmkit.models import LanguageModel
from calmkit.pairs import TokenPair

__all__ = ["FinetuningResult", "PairScores", "reproduced"]


@dataclass(frozen=True)
class PairScores:
    """Scores of a model on the held-out pairs.

    Attributes:
        loss: The model's own loss on the response chunks; lower is better.
        reproduced: Share of the prompts for which the model generates exactly the response.
    """

    loss: float
    reproduced: float


@dataclass(frozen=True)
class FinetuningResult:
    """The result of one fine-tuning.

    Attributes:
        name: Name of the file of pairs.
        digest: SHA-256 of that file.
        pairs: Number of training pairs.
        held_out_pairs: Number of held-out pairs.
        seed: Seed of all random choices.
        before: Scores of the loaded model.
        after: Scores of the saved model, with its averaged weights if it has them.
        ema: Decay of the averaged weights; None without.
        training_seconds: Time of the training steps.
    """

    name: str
    digest: str
    pairs: int
    held_out_pairs: int
    seed: int
    before: PairScores
    after: PairScores
    ema: float | None
    training_seconds: float

    def __str__(self) -> str:
        """A summary in two lines."""
        averaged = "" if self.ema is None else f" (averaged weights, decay {self.ema:g})"
        return (
            f"{self.name}: trained on {self.pairs} pairs in {self.training_seconds:.0f} s, "
            f"{self.held_out_pairs} held out\n"
            f"held out, before and after{averaged}: "
            f"loss {self.before.loss:.4g} and {self.after.loss:.4g}, "
            f"responses reproduced {self.before.reproduced:.0%} and {self.after.reproduced:.0%}"
        )


def reproduced(
    model: LanguageModel, pairs: Sequence[TokenPair], *, end_id: int, seed: int
) -> float:
    """Share of the pairs whose response the model generates exactly after the prompt.

    Args:
        model: The model, on any device; it generates at temperature 1.
        pairs: At least one pair.
        end_id: The end token, which must follow the response.
        seed: Seed of the draws.
    """
    written = model.generate(
        [pair.prompt.tolist() for pair in pairs],
        # One token more than the response, since a text that continues is not a hit.
        max_new_tokens=max(len(pair.response) for pair in pairs) + 1,
        eos_id=end_id,
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )
    hits = [one.tokens == pair.response.tolist() for one, pair in zip(written, pairs, strict=True)]
    return sum(hits) / len(hits)
