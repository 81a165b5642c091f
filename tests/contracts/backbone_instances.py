"""A small instance of each exported backbone; every one has 8 features."""

from calmkit.backbones import TransformerBackbone

BACKBONES = {
    "TransformerBackbone": lambda: TransformerBackbone(8, depth=2, heads=2),
    "TransformerBackbone, grouped queries": lambda: TransformerBackbone(
        8, depth=2, heads=4, kv_heads=2, ff_size=12
    ),
}
