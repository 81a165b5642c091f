"""Parts with the sizes of a published config, on the meta device, still without weights."""

import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.heads import (
    DiffusionHead,
    EnergyHead,
    FlowHead,
    NoisePrediction,
    ReverseSampler,
    Solver,
)
from calmkit.models import ChunkEmbedding
from calmkit.nn import AdaptiveMLP
from calmkit.recording import recorded
from calmkit.scoring import EnergyScore

from .rope import rope_part
from .settings import Settings
from .time_embedding import PublishedTimeEmbedding

__all__ = [
    "DEFAULT_EPS",
    "FLOW_OFFSET",
    "STEP_OFFSET",
    "new_autoencoder",
    "new_backbone",
    "new_diffusion_head",
    "new_energy_head",
    "new_flow_head",
    "new_input_encoder",
]

# Epsilon of the norms of an autoencoder whose config is not available.
DEFAULT_EPS = 1e-6
# Offsets with which the published heads convert time to steps; see `PublishedTimeEmbedding`.
FLOW_OFFSET = 0.0
STEP_OFFSET = 0.5


def new_autoencoder(settings: Settings) -> MLPAutoencoder:
    """The autoencoder; the last of an odd number of layers is dropped, as published."""
    settings.require(hidden_act="silu", mlp_bias=False)
    sides = ("encoder", "decoder")
    depth, decoder_depth = (settings.size(f"num_{side}_layers") // 2 for side in sides)
    dropout = settings.number("ae_dropout")
    with torch.device("meta"):
        return MLPAutoencoder(
            settings.size("patch_size"),
            settings.size("vocab_size"),
            settings.size("latent_size"),
            width=settings.size("hidden_size"),
            ff_size=settings.size("intermediate_size"),
            depth=depth,
            decoder_depth=decoder_depth,
            kl_weight=settings.number("kl_weight"),
            kl_clip=settings.number("kl_clamp"),
            token_masking=dropout,
            latent_dropout=dropout,
            norm_eps=settings.number("rms_norm_eps"),
        )


def new_input_encoder(settings: Settings) -> ChunkEmbedding:
    """The input encoder."""
    with torch.device("meta"):
        return ChunkEmbedding(
            settings.size("vocab_size"),
            settings.size("patch_size"),
            settings.size("hidden_size"),
        )


@recorded
def new_backbone(settings: Settings) -> TransformerBackbone:
    """The Transformer."""
    settings.require(hidden_act="silu", attention_bias=False, mlp_bias=False)
    with torch.device("meta"):
        backbone = TransformerBackbone(
            settings.size("hidden_size"),
            depth=settings.size("num_hidden_layers"),
            heads=settings.size("num_attention_heads"),
            kv_heads=settings.size("num_key_value_heads"),
            ff_size=settings.size("intermediate_size"),
            rope_theta=settings.number("rope_theta"),
            rope_scaling=rope_part(settings),
            norm_eps=settings.number("rms_norm_eps"),
        )
    settings.require(head_dim=backbone.head_dim)
    return backbone


@recorded
def new_energy_head(settings: Settings, *, noise_scale: float = 1.0) -> EnergyHead:
    """The energy head, with the exponent it was trained with."""
    hidden_size = settings.size("hidden_size")
    with torch.device("meta"):
        return EnergyHead(
            hidden_size,
            settings.size("latent_size"),
            width=hidden_size,
            depth=settings.size("num_mlp_layers"),
            noise_size=settings.size("noise_size"),
            num_samples=settings.size("num_samples"),
            rule=EnergyScore(settings.number("beta")),
            noise_scale=noise_scale,
        )


@recorded
def new_flow_head(
    settings: Settings,
    *,
    solver: Solver | None = None,
    noise_scale: float = 1.0,
    truncation: float | None = None,
) -> FlowHead:
    """The flow head, with 10 midpoint steps if no solver is given."""
    hidden_size = settings.size("hidden_size")
    with torch.device("meta"):
        head = FlowHead(
            hidden_size,
            settings.size("latent_size"),
            width=hidden_size,
            depth=settings.size("num_mlp_layers"),
            solver=solver,
            noise_scale=noise_scale,
            truncation=truncation,
        )
        _embed_steps(head.velocity, hidden_size, FLOW_OFFSET)
    return head


@recorded
def new_diffusion_head(
    settings: Settings,
    *,
    sampler: ReverseSampler | None = None,
    noise_scale: float = 1.0,
    truncation: float | None = None,
) -> DiffusionHead:
    """The diffusion head: noise prediction, learned variance, 1000 cosine steps."""
    hidden_size = settings.size("hidden_size")
    with torch.device("meta"):
        head = DiffusionHead(
            hidden_size,
            settings.size("latent_size"),
            width=hidden_size,
            depth=settings.size("num_mlp_layers"),
            prediction=NoisePrediction(),
            sampler=sampler,
            noise_scale=noise_scale,
            truncation=truncation,
        )
        _embed_steps(head.network, hidden_size, STEP_OFFSET)
    return head


def _embed_steps(network: AdaptiveMLP, width: int, offset: float) -> None:
    network.register_module("time_embedding", PublishedTimeEmbedding(width, offset=offset))
