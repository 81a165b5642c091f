"""The result of a study of features: numbers, text and JSON."""

from dataclasses import dataclass

from calmkit.json_converter import to_json

from .chunk_vectors import Kind
from .clearest import BestToken
from .steered_text import SteeredText

__all__ = ["FeatureStudy", "FeatureText", "Fit"]


@dataclass(frozen=True)
class Fit:
    """How well a sparse autoencoder restores held-out vectors.

    Attributes:
        explained: R^2, the share of the squared distance to the mean that it restores.
        explained_by_axes: The same for as many principal components as features may be active.
        dead: Share of the features that are active in no held-out vector.
        restored: Share of tokens that the decoder restores from the restored latents; None for
            states.
    """

    explained: float
    explained_by_axes: float
    dead: float
    restored: float | None

    def __str__(self) -> str:
        """One line."""
        tokens = "" if self.restored is None else f"; tokens decoded right {self.restored:.2%}"
        return (
            f"explained {self.explained:.1%} (as many principal components: "
            f"{self.explained_by_axes:.1%}), dead {self.dead:.1%}{tokens}"
        )


@dataclass(frozen=True)
class FeatureText:
    """A feature as text.

    Attributes:
        best: The token that it stands for.
        token: That token as text.
        active: Share of the vectors in which it is active.
        mean_activation: Mean activation over these vectors.
        examples: The chunks in which it is most active, in brackets, in their context.
        steering: Text steered along it, by strength; empty without steering.
    """

    best: BestToken
    token: str
    active: float
    mean_activation: float
    examples: tuple[str, ...]
    steering: tuple[SteeredText, ...] = ()

    def to_text(self) -> str:
        """A heading, the examples, and a line for each strength."""
        best = self.best
        lines = [
            f"feature {best.feature}: {self.token!r} at place {best.place + 1}, clarity "
            f"{best.clarity:.2f} (precision {best.precision:.0%}, recall {best.recall:.0%}), "
            f"active in {self.active:.2%}"
        ]
        lines += [f"    {example!r}" for example in self.examples]
        for one in self.steering:
            lines.append(
                f"  steered by {one.strength:g}: token in {one.rate.value:.2%} ± "
                f"{one.rate.standard_error or 0.0:.2%} of the chunks, {one.different:.0%} of them "
                "different"
            )
        lines += [f"    {one.text!r}" for one in self.steering[1:]]
        return "\n".join(lines)


@dataclass(frozen=True)
class FeatureStudy:
    """What was found in the vectors of a model.

    Attributes:
        kind: Which vectors.
        fit: How well the features restore them.
        features: The clearest, clearest first.
        protocol: How they were found, in one sentence.
    """

    kind: Kind
    fit: Fit
    features: tuple[FeatureText, ...]
    protocol: str

    def to_text(self) -> str:
        """The fit, the features and the protocol."""
        shown = [one.to_text() for one in self.features] or ["No feature stands for one token."]
        return "\n\n".join([f"{self.kind}: {self.fit}", *shown, self.protocol]) + "\n"

    def to_json(self) -> str:
        """All numbers as strict JSON."""
        return to_json(self)
