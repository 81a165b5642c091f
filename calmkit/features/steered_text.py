"""What steering along a feature does to the generated text.

At each strength a model continues the same prompts, from the same seed. Two rates are counted over
the new chunks: how many have the feature's best token at its place, which should rise, and how
many different chunks there are, which falls when the text becomes one repeated chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.data import TextTokenizer
from calmkit.diagnostics import mean_over_groups
from calmkit.metrics import Estimate
from calmkit.models import CALM

from .clearest import BestToken
from .steering import steered

__all__ = ["SteeredText", "write_steered"]

_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class SteeredText:
    """Text of a model that is steered along a feature, at one strength.

    Attributes:
        strength: In mean activations of the feature, where it is active; 0 is the model itself.
        rate: Share of the new chunks with the feature's token at its place, over prompts.
        different: Number of different new chunks, as a share of all.
        text: The text after the first prompt, which stands before it in brackets.
    """

    strength: float
    rate: Estimate
    different: float
    text: str


def write_steered(
    model: CALM,
    feature: BestToken,
    direction: Tensor,
    prompts: Sequence[list[int]],
    tokenizer: TextTokenizer,
    *,
    of_states: bool,
    strengths: Sequence[float],
    chunks: int,
    seed: int,
) -> tuple[SteeredText, ...]:
    """Continue prompts at each strength.

    Args:
        model: The model, on any device; it is not changed.
        feature: The feature, with its token.
        direction: The shift at strength 1.
        prompts: Tokens of each prompt; at least two prompts.
        tokenizer: Makes texts of tokens.
        of_states: Whether the states are shifted, rather than the latents.
        strengths: Factors on the direction.
        chunks: New chunks after each prompt.
        seed: Seed of the draws, the same at each strength.
    """
    name = "cond_direction" if of_states else "latent_direction"
    found = []
    for strength in strengths:
        shifted = steered(model, strength=strength, **{name: direction})
        generator = torch.Generator(model.backbone.device).manual_seed(seed)
        written = [
            one.tokens
            for start in range(0, len(prompts), _ROWS_AT_ONCE)
            for one in shifted.generate(
                prompts[start : start + _ROWS_AT_ONCE],
                max_new_tokens=chunks * model.chunk_size,
                generator=generator,
            )
        ]
        tokens = torch.tensor(written).view(len(prompts), chunks, model.chunk_size)
        hits = (tokens[..., feature.place] == feature.token).double().mean(dim=1)
        found.append(
            SteeredText(
                strength=strength,
                rate=mean_over_groups(hits, torch.arange(len(prompts))),
                different=len(tokens.flatten(0, 1).unique(dim=0)) / (len(prompts) * chunks),
                text=f"[{tokenizer.decode(prompts[0])}]{tokenizer.decode(written[0])}",
            )
        )
    return tuple(found)
