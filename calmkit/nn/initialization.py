"""Weight initialisation."""

import math

from torch import nn

__all__ = ["scaled_normal_"]


def scaled_normal_(module: nn.Module, *, gain: float = 1.0) -> None:
    """Draw each linear weight from N(0, gain^2 / fan_in) and set biases to zero, in place.

    A linear layer with `gain = 1` keeps the variance of its input, whatever the width.

    Args:
        module: The module whose `nn.Linear` layers are initialised.
        gain: Factor on the standard deviation.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
