r"""Latents as points of a plane: principal components, and t-SNE.

For latents z with mean mu, let u_1, u_2, ... be the orthonormal directions along which they vary
most, with variances L_1 >= L_2 >= ... (singular value decomposition of the centred latents). Then

    place(z) = (u_1 . (z - mu), u_2 . (z - mu)),
    effective dimensions = (sum_i L_i)^2 / sum_i L_i^2.

There are l effective dimensions if all directions vary equally, and 1 if only one varies. t-SNE
preserves neighbours but not distances: points of a cluster are near each other, but the positions
and sizes of clusters have no meaning.

Source: van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.extras import require
from calmkit.typing import typed

from .base import Diagnostic

__all__ = ["PrincipalMap", "principal_map", "tsne_map"]

# With fewer than a tenth of the dimensions, the others hardly matter in a distance.
_LEAST_EFFECTIVE = 0.1
# Number of neighbours that t-SNE considers, as its authors recommend; fewer for few points.
_PERPLEXITY = 30.0


@typed
@dataclass(frozen=True, eq=False)
class PrincipalMap(Diagnostic):
    """The plane along which latents vary most.

    Attributes:
        mean: mu.
        directions: u_1 and u_2; the largest coordinate of each is positive.
        variances: L_i of all directions, descending.
    """

    mean: Float[Tensor, " latent"]
    directions: Float[Tensor, "2 latent"]
    variances: Float[Tensor, " directions"]

    meaning = (
        "a few directions dominate every distance, and a head that learns by distances "
        "neglects the others; standardise latents, or use fewer dimensions"
    )

    @typed
    def place(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch 2"]:
        """Coordinates of any latents in the plane."""
        return (latents - self.mean) @ self.directions.T

    @property
    def effective_dimensions(self) -> float:
        """(sum L)^2 / sum L^2; 0 if nothing varies."""
        total = float(self.variances.sum())
        return total**2 / float(self.variances.square().sum()) if total > 0 else 0.0

    @property
    def is_bad(self) -> bool:
        """Whether there are fewer effective dimensions than a tenth of all."""
        return self.effective_dimensions < _LEAST_EFFECTIVE * len(self.mean)

    @property
    def summary(self) -> str:
        """Effective dimensions, and the share of variance in the plane."""
        shown = float(self.variances[:2].sum() / self.variances.sum().clamp_min(1e-30))
        return (
            f"latents vary along {self.effective_dimensions:.3g} of {len(self.mean)} dimensions; "
            f"the map shows {shown:.0%} of their variance"
        )


@typed
@torch.no_grad()
def principal_map(latents: Float[Tensor, "points latent"]) -> PrincipalMap:
    """Find the plane; see the module docstring.

    Args:
        latents: Posterior means or draws of many chunks.

    Raises:
        ValueError: If there are fewer than two points or dimensions.
    """
    if min(latents.shape) < 2:
        raise ValueError(
            f"latents must hold at least 2 points of 2 dimensions; got {tuple(latents.shape)}."
        )
    mean = latents.mean(dim=0)
    _, values, directions = torch.linalg.svd(latents - mean, full_matrices=False)
    directions = directions[:2]
    # The sign of a singular vector is arbitrary; without a rule, maps could flip between devices.
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return PrincipalMap(mean, directions * largest.sign(), values.square() / len(latents))


@typed
def tsne_map(latents: Float[Tensor, "points latent"]) -> Float[Tensor, "points 2"]:
    """Place latents in a plane so that neighbours stay neighbours, by scikit-learn's t-SNE.

    It starts from the principal components, so the result is deterministic.

    Args:
        latents: At least 3 points; a few hundred take seconds.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If there are fewer than three points.
    """
    if len(latents) < 3:
        raise ValueError(f"latents must hold at least 3 points; got {len(latents)}.")
    require("sklearn", "tsne_map")
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(latents) - 1) / 3)
    # The state is for the principal components, whose solver may be randomised.
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    placed = tsne.fit_transform(latents.detach().cpu().numpy())
    return torch.from_numpy(placed).to(latents)
