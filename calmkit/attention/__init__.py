"""Attention: what may be seen (masks), how it is computed, and the key/value cache."""

from .attention import attention as attention
from .cache import KVCache as KVCache
from .mask import AttentionMask as AttentionMask
