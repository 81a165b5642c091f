"""Backbones: causal sequence models from input vectors to hidden states."""

from .base import Backbone as Backbone
from .base import Cache as Cache
from .transformer import TransformerBackbone as TransformerBackbone
