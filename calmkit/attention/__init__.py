"""Attention: masks, the backends that compute it, and the key/value cache."""

from .attention import attention as attention
from .backends import AttentionBackendError as AttentionBackendError
from .backends import available_backends as available_backends
from .backends import register_backend as register_backend
from .cache import KVCache as KVCache
from .mask import AttentionMask as AttentionMask

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .backends import check_backend as check_backend
from .cache import PositionCache as PositionCache
