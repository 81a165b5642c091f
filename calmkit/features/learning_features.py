r"""Training of a sparse autoencoder on vectors in memory.

The loss of a batch is the mean of ||u - u'||^2, plus a term that revives dead features. A feature
that is in no vector's top k gets no gradient and would stay dead. So the dead features (those that
were not active in the last `patience` batches) are trained to reconstruct what the others leave
out: with e = u - u', a constant, and e' its best k_dead dead features' sum,

    loss = ||e||^2 + 1/32 ||e - e'||^2.

Features are scaled to norm 1 after each step. The learning rate falls to zero over the last fifth
of the steps.

Source: Gao et al., arXiv 2406.04093, sections 2 and A.2 (their AuxK loss).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.autoencoders import SparseAutoencoder
from calmkit.bounds import check_at_least, check_positive
from calmkit.typing import typed

__all__ = ["FeatureSettings", "learn_features"]

_REVIVING_WEIGHT = 1 / 32
_FALLING = 0.2


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Sizes and training of a sparse autoencoder.

    Attributes:
        features: Number of features.
        active: k, features of a vector that may be active.
        steps: Optimiser steps.
        batch_size: Vectors in a step.
        learning_rate: Of Adam.
        patience: Batches without activity after which a feature is dead.
    """

    features: int = 512
    active: int = 8
    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 1e-3
    patience: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_at_least(
            1, features=self.features, active=self.active, steps=self.steps,
            batch_size=self.batch_size, patience=self.patience,
        )  # fmt: skip
        check_positive(learning_rate=self.learning_rate)


@typed
def learn_features(
    vectors: Float[Tensor, "points size"],
    settings: FeatureSettings,
    generator: torch.Generator,
) -> SparseAutoencoder:
    """Train a sparse autoencoder.

    Args:
        vectors: Many vectors, such as latents or states; all are kept in memory.
        settings: Sizes and training.
        generator: Source of the batches, on the device of the vectors. The first features are
            vectors of the data, chosen by it.

    Raises:
        ValueError: If there are fewer than two vectors, or more features may be active than there
            are.
    """
    if len(vectors) < 2:
        raise ValueError(f"vectors must hold at least 2 points; got {len(vectors)}.")
    with torch.random.fork_rng(devices=[]):  # its own starting values are not used
        model = SparseAutoencoder(vectors.shape[1], settings.features, settings.active)
    model.to(device=vectors.device, dtype=vectors.dtype).standardize(vectors)
    _start_from_data(model, vectors, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999))
    falling = max(1, round(_FALLING * settings.steps))
    idle = torch.zeros(settings.features, dtype=torch.long, device=vectors.device)
    for step in range(settings.steps):
        chosen = torch.randint(
            len(vectors), (settings.batch_size,), generator=generator, device=vectors.device
        )
        u = model.read(vectors[chosen])
        loss, is_active = _loss(model, u, idle >= settings.patience)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (settings.steps - step) / falling)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.normalize()
        idle = torch.where(is_active, 0, idle + 1)
    return model.eval().requires_grad_(False)


def _start_from_data(
    model: SparseAutoencoder, vectors: Tensor, generator: torch.Generator
) -> None:
    """Begin with directions in which the data lies."""
    chosen = torch.randint(
        len(vectors), (model.features,), generator=generator, device=vectors.device
    )
    with torch.no_grad():
        model.directions.copy_(model.read(vectors[chosen]))
        model.normalize()
        model.encoder.weight.copy_(model.directions)


def _loss(model: SparseAutoencoder, u: Tensor, dead: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and which features were active."""
    dense = model.encoder(u).relu()
    top = dense.topk(model.active, dim=-1)
    activations = torch.zeros_like(dense).scatter(-1, top.indices, top.values)
    error = u - activations @ model.directions
    loss = error.square().sum(dim=-1).mean()
    if number := min(int(dead.sum()), model.size // 2):
        idle = torch.where(dead, dense, 0.0).topk(number, dim=-1)
        revived = torch.zeros_like(dense).scatter(-1, idle.indices, idle.values)
        left = error.detach() - revived @ model.directions
        loss = loss + _REVIVING_WEIGHT * left.square().sum(dim=-1).mean()
    return loss, (activations > 0).any(dim=0)
