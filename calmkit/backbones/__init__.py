"""Backbones: causal sequence models from input vectors to hidden states."""

from .base import Backbone as Backbone
from .base import Cache as Cache
from .hugging_face import HuggingFaceBackbone as HuggingFaceBackbone
from .min_gru import MinGRUBackbone as MinGRUBackbone
from .rope_scaling import LinearScaling as LinearScaling
from .rope_scaling import Llama3Scaling as Llama3Scaling
from .rope_scaling import RopeScaling as RopeScaling
from .rope_scaling import YarnScaling as YarnScaling
from .transformer import TransformerBackbone as TransformerBackbone
