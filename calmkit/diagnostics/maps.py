r"""Latents as points of a plane: principal components, and t-SNE.

With latents z of mean mu, and the orthonormal directions u_1, u_2, ... along which they vary most,
with variances L_1 >= L_2 >= ... (singular value decomposition of the centred latents),

    place(z) = (u_1 . (z - mu), u_2 . (z - mu)),
    effective dimensions = (sum_i L_i)^2 / sum_i L_i^2.

The latter is l if all directions vary alike and 1 if there is one only. t-SNE keeps neighbours and
no distances: its clusters tell what is near, their places and sizes nothing.

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

# A tenth of the dimensions: the rest of the latent hardly matters to a distance.
_LEAST_EFFECTIVE = 0.1
# Neighbours that t-SNE looks at, as its authors recommend; fewer where points are few.
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

    @typed
    def place(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch 2"]:
        """Coordinates of any latents in the plane."""
        return (latents - self.mean) @ self.directions.T

    @property
    def effective_dimensions(self) -> float:
        """(sum L)^2 / sum L^2; 0 where nothing varies."""
        total = float(self.variances.sum())
        return total**2 / float(self.variances.square().sum()) if total > 0 else 0.0

    @property
    def is_bad(self) -> bool:
        """Fewer effective dimensions than a tenth of all."""
        return self.effective_dimensions < _LEAST_EFFECTIVE * len(self.mean)

    @property
    def summary(self) -> str:
        """Effective dimensions and what the plane shows."""
        shown = float(self.variances[:2].sum() / self.variances.sum().clamp_min(1e-30))
        return (
            f"latents vary along {self.effective_dimensions:.3g} of {len(self.mean)} dimensions; "
            f"the map shows {shown:.0%} of their variance"
        )

    @property
    def meaning(self) -> str:
        """What a bad value means."""
        return (
            "a few directions dominate every distance, and a head that learns by distances "
            "neglects the others; standardise latents, or use fewer dimensions"
        )


@typed
@torch.no_grad()
def principal_map(latents: Float[Tensor, "points latent"]) -> PrincipalMap:
    """Find the plane; see the module.

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
    # The sign of a singular vector is arbitrary: without a rule, maps would flip between devices.
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return PrincipalMap(mean, directions * largest.sign(), values.square() / len(latents))


@typed
def tsne_map(latents: Float[Tensor, "points latent"]) -> Float[Tensor, "points 2"]:
    """Place latents in a plane so that neighbours stay neighbours, by scikit-learn's t-SNE.

    It starts from the principal components: nothing is left to chance.

    Args:
        latents: At least 3 points; some hundreds take seconds.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If there are fewer than three points.
    """
    if len(latents) < 3:
        raise ValueError(f"latents must hold at least 3 points; got {len(latents)}.")
    require("sklearn", "tsne_map")
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(latents) - 1) / 3)
    # The state is for the solver of the principal components, which may be a randomised one.
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    placed = tsne.fit_transform(latents.detach().cpu().numpy())
    return torch.from_numpy(placed).to(latents)
