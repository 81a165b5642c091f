"""Tables of the published names of tensors and calmkit's.

A row of a table is (published module, calmkit module, tensors). `*` is the index of a layer. Two
modules joined by " | " mean:

- on the published side, that both hold the same tensor: a file may have either, or both if they
  are equal. The decoder's output is tied to the embedding, which counts if the two differ;
- on calmkit's side, that the published tensor is their tensors joined along the last axis.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from calmkit.autoencoders import MLPAutoencoder

__all__ = [
    "AUTOENCODER_PREFIX",
    "HEAD_OUTPUT",
    "Row",
    "adaptive_rows",
    "autoencoder_rows",
    "backbone_rows",
    "energy_rows",
    "input_encoder_rows",
    "published_names",
    "unused_layer",
]

_Table = tuple[tuple[str, str, str], ...]

AUTOENCODER_PREFIX = "ae_model."
_HEAD, _ENERGY_DUPLICATE = "generative_head.", "mlp_generator."
_NETWORK = f"{_HEAD}net."
# Only flow and diffusion heads have this tensor.
HEAD_OUTPUT = f"{_NETWORK}final_layer.linear.weight"

_AUTOENCODER: _Table = (
    ("encoder.embed_tokens.weight | decoder.lm_head_weight", "embedding.weight", ""),
    ("encoder.squeeze_layer", "squeeze", "weight bias"),
    ("encoder.norm", "encoder_norm", "weight"),
    ("encoder.hidden_to_latent", "to_posterior", "weight bias"),
    ("decoder.latent_to_hidden", "from_latent", "weight bias"),
    ("decoder.expand_layer", "expand", "weight bias"),
    ("decoder.norm", "decoder_norm", "weight"),
)

# A list of published layers holds two stages: its first half and its second half.
_AUTOENCODER_STAGES = (
    ("encoder.encoder_layers", ("encoder_token_blocks", "encoder_chunk_blocks")),
    ("decoder.decoder_layers", ("decoder_chunk_blocks", "decoder_token_blocks")),
)

_AUTOENCODER_LAYER: _Table = (
    ("layernorm", "norm", "weight"),
    ("mlp.gate_proj", "feed_forward.gate", "weight"),
    ("mlp.up_proj", "feed_forward.up", "weight"),
    ("mlp.down_proj", "feed_forward.down", "weight"),
)

_INPUT_ENCODER: _Table = (
    ("transformer.embed_tokens", "tokens", "weight"),
    ("embed_proj.0", "mlp.0", "weight bias"),
    ("embed_proj.2", "mlp.2", "weight bias"),
    ("embed_proj.3", "mlp.3", "weight bias"),
)

_BACKBONE: _Table = (
    ("layers.*.input_layernorm", "layers.*.attention_norm", "weight"),
    ("layers.*.self_attn.q_proj", "layers.*.attention.query", "weight"),
    ("layers.*.self_attn.k_proj", "layers.*.attention.key", "weight"),
    ("layers.*.self_attn.v_proj", "layers.*.attention.value", "weight"),
    ("layers.*.self_attn.o_proj", "layers.*.attention.output", "weight"),
    ("layers.*.post_attention_layernorm", "layers.*.feed_forward_norm", "weight"),
    ("layers.*.mlp.gate_proj", "layers.*.feed_forward.gate", "weight"),
    ("layers.*.mlp.up_proj", "layers.*.feed_forward.up", "weight"),
    ("layers.*.mlp.down_proj", "layers.*.feed_forward.down", "weight"),
    ("norm", "norm", "weight"),
)

_ENERGY_HEAD: _Table = (
    ("noise_embd", "noise_embedding", "weight bias"),
    ("norm_noise", "noise_norm", "weight bias"),
    ("hidden_embd", "cond_embedding", "weight bias"),
    ("norm_hidden", "cond_norm", "weight bias"),
    ("mlp_blocks.*.in_ln", "blocks.*.norm", "weight bias"),
    # Its input is [LN(e); c]: the left columns belong to e, the right ones to c.
    ("mlp_blocks.*.linears.0", "blocks.*.from_hidden | blocks.*.from_cond", "weight"),
    ("mlp_blocks.*.linears.0", "blocks.*.from_cond", "bias"),
    ("mlp_blocks.*.linears.2", "blocks.*.inner", "weight bias"),
    ("mlp_blocks.*.linears.4", "blocks.*.gate_and_up", "weight bias"),
    ("mlp_blocks.*.down_proj", "blocks.*.down", "weight bias"),
    ("final_layer.in_ln", "output_norm", "weight bias"),
    ("final_layer.linears.0", "output.0", "weight bias"),
    ("final_layer.linears.2", "output.2", "weight bias"),
)

_ADAPTIVE_MLP: _Table = (
    ("time_embed.mlp.0", "time_embedding.mlp.0", "weight bias"),
    ("time_embed.mlp.2", "time_embedding.mlp.2", "weight bias"),
    ("cond_embed", "cond_embedding", "weight bias"),
    ("input_proj", "input", "weight bias"),
    ("res_blocks.*.in_ln", "blocks.*.norm", "weight bias"),
    ("res_blocks.*.mlp.0", "blocks.*.mlp.0", "weight bias"),
    ("res_blocks.*.mlp.2", "blocks.*.mlp.2", "weight bias"),
    ("res_blocks.*.adaLN_modulation.1", "blocks.*.modulation", "weight bias"),
    ("final_layer.adaLN_modulation.1", "output_modulation", "weight bias"),
    ("final_layer.linear", "output", "weight bias"),
)


@dataclass(frozen=True)
class Row:
    """One published tensor.

    Attributes:
        published: Its names in a file; all hold the same tensor.
        ours: The calmkit parameters that it consists of, joined along the last axis.
        first_counts: Whether the first name counts if they differ, since the published network
            ties the others to it; otherwise a difference is an error.
    """

    published: tuple[str, ...]
    ours: tuple[str, ...]
    first_counts: bool = False


def autoencoder_rows(autoencoder: MLPAutoencoder, prefix: str = "") -> list[Row]:
    """Rows of an autoencoder.

    Args:
        autoencoder: The autoencoder; only its numbers of blocks are read.
        prefix: Prefix of each published name.
    """
    rows = [
        replace(row, first_counts=len(row.published) > 1)
        for row in _expanded(_AUTOENCODER, 0, (prefix,))
    ]
    for layers, stages in _AUTOENCODER_STAGES:
        depth = len(getattr(autoencoder, stages[0]))
        for place, stage in enumerate(stages):
            for block in range(depth):
                layer = f"{prefix}{layers}.{place * depth + block}."
                rows += _expanded(_AUTOENCODER_LAYER, 0, (layer,), f"{stage}.{block}.")
    return rows


def unused_layer(layers: int, side: str, prefix: str = "") -> set[str]:
    """Names of the last of an odd number of layers, which the published code never calls.

    Args:
        layers: Number of layers of the encoder or decoder.
        side: `encoder` or `decoder`.
        prefix: Prefix of each published name.
    """
    if layers % 2 == 0:
        return set()
    layer = f"{prefix}{side}.{side}_layers.{layers - 1}."
    return published_names(_expanded(_AUTOENCODER_LAYER, 0, (layer,)))


def input_encoder_rows() -> list[Row]:
    """Rows of a `ChunkEmbedding`."""
    return _expanded(_INPUT_ENCODER, 0)


def backbone_rows(depth: int) -> list[Row]:
    """Rows of a `TransformerBackbone` of `depth` layers."""
    return _expanded(_BACKBONE, depth, ("transformer.",))


def energy_rows(depth: int) -> list[Row]:
    """Rows of an `EnergyHead` of `depth` blocks, which the published code saves twice."""
    return _expanded(_ENERGY_HEAD, depth, (_HEAD, _ENERGY_DUPLICATE))


def adaptive_rows(depth: int, network: str) -> list[Row]:
    """Rows of a flow or diffusion head of `depth` blocks.

    Args:
        depth: Number of blocks.
        network: The head's attribute that holds its `AdaptiveMLP`.
    """
    return _expanded(_ADAPTIVE_MLP, depth, (_NETWORK,), f"{network}.")


def published_names(rows: Iterable[Row]) -> set[str]:
    """All published names of the rows."""
    return {name for row in rows for name in row.published}


def _expanded(
    table: _Table, layers: int, published: Iterable[str] = ("",), ours: str = ""
) -> list[Row]:
    """One row for each tensor, with prefixes; rows with a `*` once for each layer."""
    rows = []
    for theirs, mine, tensors in table:
        for index in range(layers) if "*" in theirs else (0,):
            for tensor in tensors.split() or ("",):
                end = f".{tensor}" if tensor else ""
                names = [
                    [f"{name}{end}".replace("*", str(index)) for name in side.split(" | ")]
                    for side in (theirs, mine)
                ]
                rows.append(
                    Row(
                        tuple(prefix + name for name in names[0] for prefix in published),
                        tuple(ours + name for name in names[1]),
                    )
                )
    return rows
