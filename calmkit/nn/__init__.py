"""Blocks that two or more parts share."""

from .adaln import AdaptiveMLP as AdaptiveMLP
from .initialization import scaled_normal_ as scaled_normal_
from .modes import evaluation_view as evaluation_view
from .residual import ResidualMLP as ResidualMLP
from .swiglu import SwiGLU as SwiGLU
from .wide import WideBuffers as WideBuffers

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .average_velocity import AverageVelocity as AverageVelocity
from .distinct import for_each_distinct as for_each_distinct
from .dual import Dual as Dual
from .residual import ResidualBlock as ResidualBlock
from .vocabulary import targets_of_full_blocks as targets_of_full_blocks
from .vocabulary import vocabulary_nats as vocabulary_nats
from .without_memory import without_memory as without_memory
