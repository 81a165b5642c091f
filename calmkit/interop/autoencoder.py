"""Published autoencoders as `MLPAutoencoder`: in their own folder, or inside a model's file.

The published code never calls the last of an odd number of layers, which is left out here. In
training it replaces masked tokens by token 0, so the mask embedding here is initialised to the
embedding of token 0. It does not bound the log standard deviation; the bounds of `MLPAutoencoder`
lie outside the range of a trained posterior.
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

# Settings that cannot be inferred from an autoencoder's tensors; these are the published values.
# Except for the epsilon of the norms, they matter only in the autoencoder's own training.
_DEFAULTS = {"ae_dropout": 0.15, "kl_clamp": 0.5, "kl_weight": 1e-3, "rms_norm_eps": DEFAULT_EPS}

# Settings that can be inferred: each is the size of an axis of a tensor.
_SIZES = (
    ("hidden_size", "encoder.squeeze_layer.weight", 0),
    ("intermediate_size", "encoder.encoder_layers.0.mlp.gate_proj.weight", 0),
)


def load_published_autoencoder(path_or_repo_id: str | os.PathLike[str]) -> MLPAutoencoder:
    """Load an autoencoder, in evaluation mode, on the CPU.

    Args:
        path_or_repo_id: Folder, or repository `owner/name` on the Hugging Face hub.

    Raises:
        CheckpointFormatError: If a file is damaged, contains code, or does not match the config.
        CheckpointNotFoundError: If there is no such folder or repository.
    """
    folder = checkpoint_folder(path_or_repo_id)
    settings, weights = Settings.of_folder(folder), read_weights(folder)
    autoencoder, known = _filled(settings, weights, prefix="")
    weights.refuse_others(known)
    return autoencoder.eval()


def autoencoder_inside(settings: Settings, weights: Weights) -> tuple[MLPAutoencoder, set[str]]:
    """The autoencoder inside a language model's weights, and the names of its tensors.

    Args:
        settings: The language model's settings. They contain only chunk, vocabulary and latent
            size; the others are inferred from the tensors.
        weights: The language model's weights.

    Raises:
        CheckpointFormatError: If a tensor is missing or has a wrong shape.
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
