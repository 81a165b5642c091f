r"""A sparse autoencoder: vectors as sums of a few features out of many.

With the mean m and the scale s of the training vectors (s^2 the mean square per dimension of x -
m), x is read as u = (x - m) / s and

    a = top_k(relu(E u + c)),    x' = m + s D a,

where top_k keeps the k largest activations of a vector and sets the others to zero. Each column of
D, a *feature*, has norm 1, so that an activation is the length of its part of u. There may be many
more features than dimensions: if each vector is a sum of few of them, they can be told apart, and
a feature is then more often one property of the text than a dimension is.

k is given, so there is no weight of an L1 penalty to tune, and no activation is shrunk by one.

Source: Gao et al., "Scaling and evaluating sparse autoencoders", arXiv 2406.04093; top-k of
Makhzani and Frey, arXiv 1312.5663.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.recording import Recorded
from calmkit.typing import typed

__all__ = ["SparseAutoencoder"]


class SparseAutoencoder(nn.Module, Recorded):
    """Reads vectors as sums of at most k features.

    Attributes:
        size: Dimensions of a vector.
        features: Number of features.
        active: k, features of a vector that may be active.
    """

    extra_repr = Recorded.extra_repr

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int, features: int, active: int) -> None:
        """Draw random features; the encoder starts as their transpose.

        Args:
            size: Dimensions of a vector.
            features: Number of features.
            active: k.

        Raises:
            ValueError: If a size is not positive, or more features may be active than there are.
        """
        super().__init__()
        check_at_least(1, size=size, features=features, active=active)
        if active > features:
            raise ValueError(
                f"active must be at most the {features} features; got {active}. Lower it."
            )
        self.size, self.features, self.active = size, features, active
        columns = nn.functional.normalize(torch.randn(features, size), dim=-1)
        self.directions = nn.Parameter(columns)
        self.encoder = nn.Linear(size, features)
        with torch.no_grad():
            self.encoder.weight.copy_(columns)
            self.encoder.bias.zero_()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def standardize(self, vectors: Float[Tensor, "points size"]) -> None:
        """Set mean and scale to those of these vectors."""
        mean = vectors.mean(dim=0)
        scale = (vectors - mean).square().mean().sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale > 0, scale, 1.0))

    @typed
    def read(self, vectors: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Vectors as u = (x - m) / s."""
        return (vectors - self.mean) / self.scale

    @typed
    def activations(
        self, vectors: Float[Tensor, "*batch size"]
    ) -> Float[Tensor, "*batch features"]:
        """Activation of each feature, zero or positive; at most k are positive."""
        dense = self.encoder(self.read(vectors)).relu()
        top = dense.topk(self.active, dim=-1)
        return torch.zeros_like(dense).scatter(-1, top.indices, top.values)

    @typed
    def decode(
        self, activations: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch size"]:
        """Vectors of given activations."""
        return self.mean + self.scale * (activations @ self.directions)

    @typed
    def forward(self, vectors: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Reconstructed vectors."""
        return self.decode(self.activations(vectors))

    @typed
    @torch.no_grad()
    def direction(self, feature: int) -> Float[Tensor, " size"]:
        """The change of a vector when a feature's activation grows by 1."""
        return self.scale * self.directions[feature]

    @torch.no_grad()
    def normalize(self) -> None:
        """Give every feature the norm 1."""
        self.directions.copy_(nn.functional.normalize(self.directions, dim=-1))
