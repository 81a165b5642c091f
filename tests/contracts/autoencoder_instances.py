"""A small instance of each exported autoencoder: 3 tokens of 11 to 5 dimensions."""

import torch

from calmkit.autoencoders import MLPAutoencoder, StandardizedAutoencoder


def mlp(**arguments):
    """The MLP autoencoder with strong regularisation, so that its randomness shows."""
    return MLPAutoencoder(3, 11, 5, **{"width": 8, "token_masking": 0.5} | arguments)


def standardized():
    """A wrapper that has been fitted."""
    tokens = torch.randint(11, (20, 3), generator=torch.Generator().manual_seed(7))
    return StandardizedAutoencoder(mlp()).fit(tokens)


AUTOENCODERS = {
    "MLPAutoencoder": mlp,
    "MLPAutoencoder, no blocks": lambda: mlp(depth=0),
    "MLPAutoencoder, two blocks a stage": lambda: mlp(depth=2, ff_size=12),
    "StandardizedAutoencoder": standardized,
}
