"""Published language models as `CALM`, with an energy, flow or diffusion head.

The weights of such a model contain the autoencoder, too (`ae_model.*`). `ae_path` in its config is
a path on the machine that trained it and is ignored. The config does not name the head; it is
inferred from the names and the output size of its tensors.
"""

import os
from collections.abc import Callable

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.heads import Head
from calmkit.models import CALM

from .autoencoder import autoencoder_inside
from .conversion import calmkit_state
from .errors import CheckpointFormatError
from .files import Weights, read_weights
from .hub import checkpoint_folder
from .names import (
    AUTOENCODER_PREFIX,
    HEAD_OUTPUT,
    Row,
    adaptive_rows,
    backbone_rows,
    energy_rows,
    input_encoder_rows,
    published_names,
)
from .parts import (
    new_backbone,
    new_diffusion_head,
    new_energy_head,
    new_flow_head,
    new_input_encoder,
)
from .settings import Settings

__all__ = ["load_published_calm"]


def load_published_calm(
    path_or_repo_id: str | os.PathLike[str], autoencoder: ChunkAutoencoder | None = None
) -> CALM:
    """Load a language model, in evaluation mode, on the CPU.

    Args:
        path_or_repo_id: Folder, or repository `owner/name` on the Hugging Face hub.
        autoencoder: Used instead of the one inside the weights, and frozen; required if there is
            none inside.

    Raises:
        CheckpointFormatError: If a file is damaged, contains code, or does not match the config.
        CheckpointNotFoundError: If there is no such folder or repository.
        ValueError: If the sizes of a given autoencoder differ from the model's.
    """
    folder = checkpoint_folder(path_or_repo_id)
    settings, weights = Settings.of_folder(folder), read_weights(folder)
    known = {name for name in weights.tensors if name.startswith(AUTOENCODER_PREFIX)}
    if autoencoder is None:
        if not known:
            path = settings.values.get("ae_path")
            hint = "" if path is None else f" ae_path of the config, {path!r}, is not followed."
            raise CheckpointFormatError(
                f"{weights.source} must contain {AUTOENCODER_PREFIX}* unless an autoencoder is "
                "given; it has none. Pass autoencoder=load_published_autoencoder(FOLDER)"
                f", on the command line `calmkit convert --autoencoder FOLDER`.{hint}"
            )
        autoencoder, known = autoencoder_inside(settings, weights)
    input_encoder = settings.build(new_input_encoder)
    backbone = settings.build(new_backbone)
    make_head, head_rows = _head(settings, weights)
    head = settings.build(make_head)
    for part, rows in (
        (input_encoder, input_encoder_rows()),
        (backbone, backbone_rows(len(backbone.layers))),
        (head, head_rows),
    ):
        part.load_state_dict(calmkit_state(part, weights, rows), assign=True)
        known |= published_names(rows)
    weights.refuse_others(known)
    return CALM(
        autoencoder=autoencoder, input_encoder=input_encoder, backbone=backbone, head=head
    ).eval()


def _head(settings: Settings, weights: Weights) -> tuple[Callable[[Settings], Head], list[Row]]:
    """The function that builds the head, and its rows."""
    depth, latent_size = settings.size("num_mlp_layers"), settings.size("latent_size")
    if HEAD_OUTPUT not in weights.tensors:
        return new_energy_head, energy_rows(depth)
    outputs = weights.matrix_size(HEAD_OUTPUT, 0)
    if outputs == latent_size:
        return new_flow_head, adaptive_rows(depth, "velocity")
    if outputs == 2 * latent_size:
        return new_diffusion_head, adaptive_rows(depth, "network")
    raise CheckpointFormatError(
        f"{weights.named(HEAD_OUTPUT)} must have latent_size = {latent_size} rows (flow) or twice "
        f"as many (diffusion); got {outputs}."
    )
