"""Saving models in the published format: `config.json` and `pytorch_model.bin`.

The format has one architecture. A model with another part, or with a setting that the published
code lacks, is refused: the published code would load it and compute something else. State that
matters only in training and that the format cannot store is left out: the mask embedding, loss
weights, distributions of times, and the settings of a sampler. A standardised autoencoder is
folded into a plain one; see `folding`.
"""

import os
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.models import CALM, ChunkEmbedding, NoisyInput

from .conversion import published_tensors
from .folding import folded
from .head_settings import head_form
from .names import AUTOENCODER_PREFIX, autoencoder_rows, backbone_rows, input_encoder_rows
from .parts import DEFAULT_EPS
from .rope import rope_config
from .writing import check_new, write_folder

__all__ = ["save_published"]

P = TypeVar("P")


def save_published(model: CALM | ChunkAutoencoder, folder: str | os.PathLike[str]) -> None:
    """Write a model in the published format, atomically.

    A language model's weights contain its autoencoder. The published code also needs the
    autoencoder in its own folder: save `model.autoencoder`, too, and set `ae_path` in
    `config.json`, which is null here, to that folder.

    Args:
        model: An `MLPAutoencoder`, standardised or not, or a `CALM` of one, a `ChunkEmbedding`, a
            `TransformerBackbone` and a published head, as `load_published_calm` returns it.
        folder: New or empty.

    Raises:
        ValueError: If the format cannot express the model, or the folder is not empty.
    """
    folder = Path(folder)
    check_new(folder)
    config, tensors = _form(model)
    write_folder(folder, config, tensors)


def _form(model: CALM | ChunkAutoencoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of the two files."""
    if isinstance(model, ChunkAutoencoder):
        autoencoder = _mlp_autoencoder(model)
        return _autoencoder_config(autoencoder), _autoencoder_tensors(autoencoder, "")
    if not isinstance(model, CALM):
        raise ValueError(
            f"model must be a CALM or an MLPAutoencoder to be saved; got {type(model).__name__}."
        )
    autoencoder = _mlp_autoencoder(model.autoencoder)
    if _eps(autoencoder) != DEFAULT_EPS:
        raise ValueError(
            f"autoencoder must have {DEFAULT_EPS} as eps of its norms inside a CALM, whose config "
            f"does not state it; got {_eps(autoencoder)}."
        )
    noisy = isinstance(model.input_encoder, NoisyInput)  # noise is for training only
    read = model.input_encoder.encoder if noisy else model.input_encoder
    input_encoder = _only(read, ChunkEmbedding, "input_encoder")
    backbone = _only(model.backbone, TransformerBackbone, "backbone")
    head_config, head_rows = head_form(model.head)
    config = {
        **_common(input_encoder),
        **_backbone_config(backbone),
        **head_config,
        "ae_path": None,
        "latent_size": autoencoder.latent_size,
        "patch_size": autoencoder.chunk_size,
        "vocab_size": autoencoder.vocab_size,
    }
    tensors = {
        **_autoencoder_tensors(autoencoder, AUTOENCODER_PREFIX),
        **published_tensors(input_encoder, input_encoder_rows()),
        **published_tensors(backbone, backbone_rows(len(backbone.layers))),
        **published_tensors(model.head, head_rows),
    }
    return config, tensors


def _autoencoder_config(autoencoder: MLPAutoencoder) -> dict[str, Any]:
    if autoencoder.token_masking != autoencoder.latent_dropout:
        raise ValueError(
            "token_masking and latent_dropout must be equal, since the format has one number for "
            f"both; got {autoencoder.token_masking} and {autoencoder.latent_dropout}."
        )
    return {
        **_common(autoencoder),
        "architectures": ["Autoencoder"],
        "ae_dropout": autoencoder.latent_dropout,
        "hidden_size": autoencoder.embedding.embedding_dim,
        "intermediate_size": _ff_size(autoencoder.encoder_token_blocks[0]),
        "kl_clamp": autoencoder.kl_clip,
        "kl_weight": autoencoder.kl_weight,
        "latent_size": autoencoder.latent_size,
        "num_decoder_layers": 2 * len(autoencoder.decoder_token_blocks),
        "num_encoder_layers": 2 * len(autoencoder.encoder_token_blocks),
        "patch_size": autoencoder.chunk_size,
        "rms_norm_eps": _eps(autoencoder),
        "vocab_size": autoencoder.vocab_size,
    }


def _autoencoder_tensors(autoencoder: MLPAutoencoder, prefix: str) -> dict[str, Tensor]:
    if not autoencoder.encoder_token_blocks:
        raise ValueError("depth of the autoencoder must be at least 1 to be saved; got 0.")
    rows = autoencoder_rows(autoencoder, prefix)
    return published_tensors(autoencoder, rows, without={"mask_embedding"})


def _mlp_autoencoder(autoencoder: ChunkAutoencoder) -> MLPAutoencoder:
    plain = folded(autoencoder)
    if not isinstance(plain, MLPAutoencoder):
        raise ValueError(
            "autoencoder must be an MLPAutoencoder, standardised or not, as the format has no "
            f"other; got {type(autoencoder).__name__}."
        )
    return plain


def _only(part: object, kind: type[P], name: str) -> P:
    """The part, if it is of the one kind that the format can express."""
    if not isinstance(part, kind):
        raise ValueError(
            f"{name} must be a {kind.__name__}, as the format has no other; got "
            f"{type(part).__name__}."
        )
    return part


def _backbone_config(backbone: TransformerBackbone) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_size": backbone.hidden_size,
        "intermediate_size": _ff_size(backbone.layers[0]),
        "num_attention_heads": backbone.hidden_size // backbone.head_dim,
        "num_hidden_layers": len(backbone.layers),
        "num_key_value_heads": backbone.kv_heads,
        "rms_norm_eps": _eps(backbone),
        "rope_scaling": rope_config(backbone.rope_scaling),
        "rope_theta": backbone.rope_theta,
    }


def _common(module: nn.Module) -> dict[str, Any]:
    """The entries that both configs share."""
    dtype = next(module.parameters()).dtype
    return {
        "hidden_act": "silu",
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def _ff_size(block: nn.Module) -> int:
    gate = block.get_submodule("feed_forward.gate")
    return cast(nn.Linear, gate).out_features


def _eps(module: nn.Module) -> float | None:
    found = {norm.eps for norm in module.modules() if isinstance(norm, nn.RMSNorm)}
    if len(found) != 1:
        raise ValueError(
            f"norms of {type(module).__name__} must have one eps, since the format has one "
            f"number; got {sorted(map(str, found))}."
        )
    return found.pop()
