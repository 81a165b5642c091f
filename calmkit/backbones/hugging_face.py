"""Any causal Transformer of Hugging Face `transformers`, with vectors instead of tokens as input.

The wrapped model runs unchanged, through `inputs_embeds`; its token embedding is left out. The
mask provides `AttentionMask.dense` as its 4-D attention mask and `AttentionMask.positions` as its
positions, rotary or learned. A plain causal mask is left to the model, which has faster kernels
for it. Keys and values are stored in a `KVCache` of fixed capacity.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.attention import AttentionMask, KVCache
from calmkit.extras import require
from calmkit.nn import WideBuffers
from calmkit.typing import typed

from .base import Backbone, Cache
from .hugging_face_models import CacheOfLayers, check_model, check_settings

__all__ = ["HuggingFaceBackbone"]


class HuggingFaceBackbone(WideBuffers, Backbone):
    """A causal `transformers` model as a backbone: built from settings, or an existing one.

    To use pretrained weights:
    `HuggingFaceBackbone.from_model(transformers.AutoModel.from_pretrained(name))`.

    Attributes:
        model: The `transformers.PreTrainedModel`, without its token embedding.
        max_positions: Number of learned positions; None if its positions are unlimited.
    """

    model: Any
    max_positions: int | None

    def __init__(
        self, hidden_size: int, *, model_type: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Build a model with random weights; nothing is downloaded.

        Args:
            hidden_size: Features of input vectors and hidden states.
            model_type: The model's name in `transformers`, such as "llama" or "gpt2".
            settings: Further entries of its configuration, such as `num_hidden_layers`.

        Raises:
            ImportError: If `transformers` is not installed.
            ValueError: If `transformers` does not know the model type or a setting, a setting
                names a file or a repository, or `from_model` would refuse the model.
        """
        super().__init__(hidden_size)
        require("transformers", "HuggingFaceBackbone")
        from transformers import CONFIG_MAPPING, AutoModel  # slow to import

        if model_type not in CONFIG_MAPPING:
            raise ValueError(
                "model_type must be a name that transformers knows, such as 'llama' or 'gpt2'; "
                f"got {model_type!r}."
            )
        settings = dict(settings or {})
        defaults = CONFIG_MAPPING[model_type]()
        unknown = sorted(name for name in settings if not hasattr(defaults, name))
        if unknown:  # transformers itself would ignore them
            raise ValueError(
                f"settings must be entries of {type(defaults).__name__}; it has no {unknown}."
            )
        check_settings(settings)
        entries: dict[str, Any] = {"hidden_size": hidden_size} | settings
        config = CONFIG_MAPPING[model_type](**entries)
        if config.hidden_size != hidden_size:
            raise ValueError(
                f"settings must not change hidden_size = {hidden_size}; they make it "
                f"{config.hidden_size}. Leave that entry out."
            )
        self._take(AutoModel.from_config(config))

    @classmethod
    def from_model(cls, model: nn.Module) -> "HuggingFaceBackbone":
        """Wrap an existing model; the backbone shares its weights and does not change it.

        Args:
            model: A causal `transformers.PreTrainedModel`. Only the base model is used if it has
                a language-model head.

        Raises:
            ImportError: If `transformers` is not installed.
            ValueError: If the model is of another kind, or a mask cannot control its attention:
                it is not causal, is recurrent, or has its own window.
        """
        require("transformers", "HuggingFaceBackbone")
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel):
            raise ValueError(
                f"model must be a transformers PreTrainedModel; got {type(model).__name__}."
            )
        backbone = cls.__new__(cls)
        Backbone.__init__(backbone, model.config.hidden_size)
        backbone._take(model.base_model)
        return backbone

    def _take(self, model: Any) -> None:
        """Keep the model without its token embedding, which would be an unused weight."""
        check_model(model)
        # A copy of the structure only: the weights are shared.
        shared = {id(weight): weight for weight in model.parameters()}
        self.model = copy.deepcopy(model, shared)
        self.model.set_input_embeddings(nn.Identity())
        # A remaining embedding holds learned positions; rotary ones are unlimited.
        learned = any(isinstance(module, nn.Embedding) for module in self.model.modules())
        self.max_positions = model.config.max_position_embeddings if learned else None

    def wide_buffers(self) -> Iterable[tuple[nn.Module, str]]:
        """Tables of positions, such as rotary rates: buffers that the model does not save.

        `transformers` itself keeps them in float32 when it loads a model in bfloat16.
        """
        saved = self.model.state_dict().keys()
        for path, _ in self.model.named_buffers():
            if path not in saved:
                owner, _, name = path.rpartition(".")
                yield self.model.get_submodule(owner), name

    @typed
    def forward(
        self,
        vectors: Float[Tensor, "batch positions hidden"],
        mask: AttentionMask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch positions hidden"]:
        """Compute the hidden states; see `Backbone.forward`.

        Raises:
            ValueError: As there, or if there are more positions than learned ones.
        """
        mask = self._check_input(vectors, mask, cache)
        cache = self._own_cache(cache, KVCache)
        rows, new, _ = vectors.shape
        if not torch.compiler.is_compiling():
            if cache is not None:  # a position without an embedding would be an IndexError
                cache.check_room(new)
                longest = cache.longest + new
            else:
                longest = new if mask.lengths is None else max(map(max, mask.lengths))
            self._check_positions("positions", longest)
        if rows == 0:  # transformers cannot reshape empty tensors
            return vectors.clone()
        attention_mask = position_ids = None
        if not (mask.is_plain and mask.is_causal):
            kv_len = new if cache is None else cache.keys.shape[2]
            attention_mask = self._dense(mask, new, kv_len, vectors)
            position_ids = mask.positions(new, vectors.device)
        states = self.model(
            inputs_embeds=vectors,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=None if cache is None else CacheOfLayers(cache),
            use_cache=cache is not None,
        ).last_hidden_state
        if cache is not None:
            cache.advance(new)
        return states

    def _dense(self, mask: AttentionMask, q_len: int, kv_len: int, vectors: Tensor) -> Tensor:
        """The mask with an axis for heads, in the form that the model's attention expects."""
        visible = mask.dense(q_len, kv_len, vectors.device)[:, None]
        if self.model.config._attn_implementation == "sdpa":
            return visible
        # The model's own attention adds the mask to its scores.
        added = torch.zeros(visible.shape, dtype=vectors.dtype, device=vectors.device)
        return added.masked_fill(~visible, float("-inf"))

    def _check_positions(self, name: str, count: int) -> None:
        if self.max_positions is not None and count > self.max_positions:
            raise ValueError(
                f"{name} must be at most the {self.max_positions} learned positions of "
                f"{type(self.model).__name__}; got {count}. Set max_position_embeddings larger."
            )

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty key/value cache; see `Backbone.new_cache`.

        Raises:
            ValueError: If there are fewer learned positions than `capacity`.
        """
        self._check_positions("capacity", capacity)
        config = self.model.config
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or self.hidden_size // heads
        shape = (config.num_hidden_layers, batch_size, capacity, kv_heads, head_dim)
        weight = next(self.model.parameters())
        return KVCache(
            weight.new_zeros(shape),
            weight.new_zeros(shape),
            torch.zeros(batch_size, dtype=torch.long, device=weight.device),
        )
