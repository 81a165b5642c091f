"""Blocks that two or more parts share."""

from .adaln import AdaptiveMLP as AdaptiveMLP
from .initialization import scaled_normal_ as scaled_normal_
from .swiglu import SwiGLU as SwiGLU
