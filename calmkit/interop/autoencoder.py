"""Published autoencoders as `MLPAutoencoder`: in a folder of their own, or inside a model's file.

The published code never calls the last of an odd number of layers: it is left out here. In
training that code turns masked tokens into token 0: the mask embedding here starts as that
token's. It does not bound the log standard deviation; `MLPAutoencoder` does, outside of what a
trained posterior uses.
"""

import os
import re

from calmkit.autoencoders import MLPAutoencoder

from .conversion import calmkit_state
from .files import Weights, read_weights
from .hub import checkpoint_folder
from .names import AUTOENCODER_PREFIX, autoencoder_rows, published_names, unused_layer
from .parts import DEFAULT_EPS, new_autoencoder
from .settings import Settings

__all__ = ["autoencoder_inside", "load_published_autoencoder"]

# What an autoencoder's tensors do not show: the published values. They matter to its own training
# only, but for the small number in its norms.
_DEFAULTS = {"ae_dropout": 0.15, "kl_clamp": 0.5, "kl_weight": 1e-3, "rms_norm_eps": DEFAULT_EPS}

# What they do show: which axis of which tensor is a size.
_SIZES = (
    ("hidden_size", "encoder.squeeze_layer.weight", 0),
    ("intermediate_size", "encoder.encoder_layers.0.mlp.gate_proj.weight", 0),
)


def load_published_autoencoder(path_or_repo_id: str | os.PathLike[str]) -> MLPAutoencoder:
    """Load an autoencoder, in evaluation mode, on the CPU.

    Args:
        path_or_repo_id: Folder, or repository `owner/name` on the Hugging Face hub.

    Raises:
        CheckpointFormatError: If a file is damaged, holds code, or does not fit the config.
        CheckpointNotFoundError: If there is no such folder or repository.
    """
    folder = checkpoint_folder(path_or_repo_id)
    settings, weights = Settings.of_folder(folder), read_weights(folder)
    autoencoder, known = _filled(settings, weights, prefix="")
    weights.refuse_others(known)
    return autoencoder.eval()


def autoencoder_inside(settings: Settings, weights: Weights) -> tuple[MLPAutoencoder, set[str]]:
    """The autoencoder inside a language model's weights, and all names that belong to it.

    Args:
        settings: The language model's; it states chunk, vocabulary and latent size only, and
            the others are read off the tensors.
        weights: The language model's.

    Raises:
        CheckpointFormatError: If a tensor is missing or does not fit.
    """
    inside = _DEFAULTS | {
        key: settings.size(key) for key in ("patch_size", "vocab_size", "latent_size")
    }
    for side in ("encoder", "decoder"):
        layer = re.compile(re.escape(f"{AUTOENCODER_PREFIX}{side}.{side}_layers.") + r"(\d+)\.")
        found = {match[1] for name in weights.tensors if (match := layer.match(name))}
        inside[f"num_{side}_layers"] = len(found)
    for key, name, axis in _SIZES:
        inside[key] = weights.matrix_size(AUTOENCODER_PREFIX + name, axis)
    return _filled(Settings(weights.source, inside), weights, prefix=AUTOENCODER_PREFIX)


def _filled(
    settings: Settings, weights: Weights, *, prefix: str
) -> tuple[MLPAutoencoder, set[str]]:
    autoencoder = settings.build(new_autoencoder)
    rows = autoencoder_rows(autoencoder, prefix)
    state = calmkit_state(autoencoder, weights, rows)
    state["mask_embedding"] = state["embedding.weight"][0].clone()
    autoencoder.load_state_dict(state, assign=True)
    known = published_names(rows)
    for side in ("encoder", "decoder"):
        known |= unused_layer(settings.size(f"num_{side}_layers"), side, prefix)
    return autoencoder, known
