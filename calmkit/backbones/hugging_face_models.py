"""The cache interface of `transformers` models, and checks of models used as backbones."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from calmkit.attention import KVCache

__all__ = ["CacheOfLayers", "check_model", "check_settings"]


class CacheOfLayers:
    """The cache interface that layers of `transformers` models use, on a `KVCache`."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values, (batch, heads, new, head_dim); return all.

        Raises:
            ValueError: If their sizes differ from the model's configuration.
        """
        expected = self._cache.keys.shape[3:]
        for name, stored in (("keys", keys), ("values", values)):
            if (stored.shape[1], stored.shape[3]) != expected:
                raise ValueError(
                    f"{name} of each layer must have (kv_heads, head_dim) = {tuple(expected)}, as "
                    f"the configuration says; got {(stored.shape[1], stored.shape[3])}. A model "
                    "that compresses its keys cannot be used with a cache."
                )
        self._cache.append(layer, keys.transpose(1, 2), values.transpose(1, 2))
        all_keys, all_values = self._cache.keys[layer], self._cache.values[layer]
        return all_keys.transpose(1, 2), all_values.transpose(1, 2)

    def get_seq_length(self) -> int:
        """The capacity: `update` returns that many keys, and the mask hides the unused ones."""
        return self._cache.keys.shape[2]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that make `transformers` read or download something.

    For example, an attention implementation named `owner/name` is code from the Hugging Face hub.

    Raises:
        ValueError: If a setting does so, at any depth; names it.
    """
    left = list(settings.items())
    while left:
        name, value = left.pop()
        if isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list | tuple):
            left += ((name, entry) for entry in value)
        elif isinstance(value, str) and ("/" in value or "\\" in value or ":" in value):
            raise ValueError(
                f"settings must not name files or repositories, so that nothing is read or "
                f"downloaded; got {name} = {value!r}."
            )


def check_model(model: Any) -> None:
    """Refuse a model whose attention is not fully controlled by a 4-D mask and positions."""
    config, name = model.config, type(model).__name__
    needed = {"inputs_embeds", "attention_mask", "position_ids", "past_key_values"}
    missing = sorted(needed - set(inspect.signature(model.forward).parameters))
    if missing:
        raise ValueError(f"model must take {missing} in its forward; {name} does not.")
    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    if model._is_stateful or causal != [True] * config.num_hidden_layers:
        raise ValueError(
            f"model must have one causal attention in each layer and no other memory, such as "
            f"LlamaModel or GPT2Model; {name} is of another kind."
        )
    layers = sorted(set(getattr(config, "layer_types", None) or []) - {"full_attention"})
    window = getattr(config, "sliding_window", None)
    if layers or window is not None:
        raise ValueError(
            f"model must not limit what its layers see; {name} has sliding_window = {window} and "
            f"layer_types with {layers}. Set sliding_window to null and leave limits to the mask."
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            "model must use the attention 'sdpa' or 'eager', which take any mask; got "
            f"{config._attn_implementation!r}. Load it with attn_implementation='sdpa'."
        )
