"""A small instance of each exported autoencoder: 3 tokens of 11 to 6 dimensions."""

import torch

from calmkit.autoencoders import (
    ContextualAutoencoder,
    MLPAutoencoder,
    RMSNormalizedAutoencoder,
    SphericalAutoencoder,
    StandardizedAutoencoder,
    TokenwiseAutoencoder,
)


def mlp(**arguments):
    """The MLP autoencoder with strong regularisation, so that its randomness shows."""
    return MLPAutoencoder(3, 11, 6, **{"width": 8, "token_masking": 0.5} | arguments)


def contextual(**arguments):
    """One neighbour before, unless told otherwise."""
    small = {"width": 8, "depth": 1, "heads": 2, "memory_size": 2, "token_masking": 0.5}
    return ContextualAutoencoder(3, 11, 6, **small | arguments)


def tokenwise(kind=MLPAutoencoder, **arguments):
    """A small autoencoder of single tokens."""
    small = {"width": 8, "token_masking": 0.5} | arguments
    return TokenwiseAutoencoder(3, 11, 6, autoencoder=lambda *sizes: kind(*sizes, **small))


def wrapped(wrapper, make=mlp):
    """A wrapper that has been fitted."""
    tokens = torch.randint(11, (20, 3), generator=torch.Generator().manual_seed(7))
    return wrapper(make()).fit(tokens)


def standardized(make=mlp):
    """A standardised autoencoder that has been fitted."""
    return wrapped(StandardizedAutoencoder, make)


AUTOENCODERS = {
    "MLPAutoencoder": mlp,
    "MLPAutoencoder, no blocks": lambda: mlp(depth=0),
    "MLPAutoencoder, two blocks a stage": lambda: mlp(depth=2, ff_size=12),
    "ContextualAutoencoder": contextual,
    "ContextualAutoencoder, neighbours on both sides": lambda: contextual(
        depth=2, memory_size=3, neighbours_before=2, neighbours_after=1
    ),
    "TokenwiseAutoencoder": tokenwise,
    "TokenwiseAutoencoder of a contextual one": lambda: tokenwise(
        ContextualAutoencoder, depth=1, heads=2, memory_size=2
    ),
    "StandardizedAutoencoder": standardized,
    "StandardizedAutoencoder of a tokenwise one": lambda: standardized(tokenwise),
    "StandardizedAutoencoder of a contextual one": lambda: standardized(contextual),
    "RMSNormalizedAutoencoder": lambda: wrapped(RMSNormalizedAutoencoder),
    "RMSNormalizedAutoencoder of a contextual one": lambda: wrapped(
        RMSNormalizedAutoencoder, contextual
    ),
    "SphericalAutoencoder of a standardised one": lambda: wrapped(
        SphericalAutoencoder, standardized
    ),
}
