"""The results of all diagnostics of a model: as numbers, lines and JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

from .aggregate import PriorGap
from .base import Diagnostic
from .collisions import CollisionCalibration
from .conditioning import ConditioningGap
from .gate import DecoderGate
from .interpolation import Interpolation
from .latent_error import LatentError
from .latents import LatentUse
from .maps import PrincipalMap
from .neighbours import NearestChunks
from .next_chunk import NextChunkAccuracy
from .noise import NoiseCurve
from .skill import EnergySkill
from .spread import SampleSpread
from .state_rank import StateRank
from .text_quality import TextQuality
from .votes import SampleVotes

__all__ = ["Diagnosis", "LatentPlaces"]


@typed
@dataclass(frozen=True, eq=False)
class LatentPlaces:
    """Latents as points of the plane.

    Attributes:
        real: Posterior draws of the chunks of the text.
        drawn: The head's, at the same places of the text.
    """

    real: Float[Tensor, "reals 2"]
    drawn: Float[Tensor, "points 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """All diagnostics of one model, the autoencoder's first: no head can repair its faults.

    Attributes:
        noise: Accuracy of the autoencoder under noise.
        gate: Accuracy by place, at the noise that the head makes.
        latents: Active dimensions and KL.
        prior: Aggregate posterior against the prior.
        map: Principal components of the latents.
        interpolation: Interpolations between chunks.
        states: Effective rank of the states that the head reads.
        conditioning: Whether the head uses its condition.
        skill: The head's energy score between marginal and posterior.
        spread: Width of the head's samples.
        latent_error: Distance of samples and their mean to the true latent.
        neighbours: Whether samples are near latents of real text.
        next_chunk: Accuracy of the next chunk's tokens, without the head's noise.
        collisions: Whether draws agree with the text as often as with each other.
        votes: Whether draws agree on one chunk.
        principal: Latents on the map of principal components.
        tsne: Latents by t-SNE; None without scikit-learn.
        examples: Texts of a few samples and interpolations.
        protocol: How it was measured, in one sentence.
        text: The model's score against that of trigrams; None if the training text is unknown.
    """

    noise: NoiseCurve
    gate: DecoderGate
    latents: LatentUse
    prior: PriorGap
    map: PrincipalMap
    interpolation: Interpolation
    states: StateRank
    conditioning: ConditioningGap
    skill: EnergySkill
    spread: SampleSpread
    latent_error: LatentError
    neighbours: NearestChunks
    next_chunk: NextChunkAccuracy
    collisions: CollisionCalibration
    votes: SampleVotes
    principal: LatentPlaces
    tsne: LatentPlaces | None
    examples: tuple[str, ...]
    protocol: str
    text: TextQuality | None = None

    @property
    def diagnostics(self) -> dict[str, Diagnostic]:
        """The diagnostics by their names, that of the text first, then in order."""
        names = ["text", *(field.name for field in dataclasses.fields(self)[:-1])]
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if isinstance(value, Diagnostic)}

    def to_text(self) -> str:
        """A line for each diagnostic, the examples and the protocol."""
        verdicts = (f"{name:13} {found.verdict}" for name, found in self.diagnostics.items())
        return "\n".join((*verdicts, "", *self.examples, "", self.protocol, ""))

    def to_json(self) -> str:
        """All numbers by name; numbers that are not finite become null."""
        content: dict[str, Any] = {
            name: {"is_bad": found.is_bad, "verdict": found.verdict, **_numbers(found)}
            for name, found in self.diagnostics.items()
        }
        content |= {"examples": self.examples, "protocol": self.protocol}
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)


def _numbers(value: Any) -> Any:
    """A dataclass of numbers, tuples and tensors as JSON values."""
    if isinstance(value, Tensor):
        return _numbers(value.tolist())
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _numbers(getattr(value, name)) for name in names}
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
