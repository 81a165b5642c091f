r"""A standardised autoencoder folded into a plain one, which the published format can store.

`StandardizedAutoencoder` presents heads with the latents z' = (z - mu) / sigma. This map is
affine, and so are the layers next to the latent. It is folded into their weights, dimension by
dimension,

    mean     m' = (w_m h + b_m - mu) / sigma
    log std  r' =  w_r h + b_r - log sigma
    decoder  w z + b = (w sigma) z' + (b + w mu)

Encoder and decoder then compute the same functions, up to rounding, in the coordinates that the
head was trained in. The folded autoencoder is for inference, not for training: its KL to the
standard normal is a different one.
"""

import copy

import torch
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder

__all__ = ["folded"]


@torch.no_grad()
def folded(autoencoder: ChunkAutoencoder) -> ChunkAutoencoder:
    """A plain autoencoder with the same function, or the given one if it cannot be folded.

    Args:
        autoencoder: The autoencoder; it is not changed.
    """
    if not isinstance(autoencoder, StandardizedAutoencoder):
        return autoencoder
    inner = folded(autoencoder.autoencoder)
    if not isinstance(inner, MLPAutoencoder):
        return autoencoder
    plain = copy.deepcopy(inner)
    # In double precision, so that only the results are rounded.
    shift, scale = autoencoder.shift.double(), autoencoder.scale.double()
    factor = torch.cat([1 / scale, torch.ones_like(scale)])
    offset = torch.cat([-shift / scale, -scale.log()])
    weight, bias = (tensor.double() for tensor in plain.to_posterior.parameters())
    _set(plain.to_posterior, weight * factor[:, None], bias * factor + offset)
    weight, bias = (tensor.double() for tensor in plain.from_latent.parameters())
    _set(plain.from_latent, weight * scale, bias + weight @ shift)
    return plain


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
