"""How a module computes fast on its device: compiled, and with the fastest products."""

from .compiled_blocks import compiled_blocks as compiled_blocks
from .compiled_blocks import uncompiled as uncompiled
from .float32_products import fast_products as fast_products

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .compiled_blocks import check_compiler as check_compiler
from .compiled_blocks import compile_alike as compile_alike
