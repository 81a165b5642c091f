"""The published model and its step (arXiv 2510.27688), written literally: what calmkit races.

Every choice is the paper's, or that of its code where the paper is silent: the state is copied to
each of the N samples, the target of the energy loss is M = 100 draws of the posterior held in one
tensor, the autoencoder's logits are held whole, latents are as the autoencoder makes them, weights
start at N(0, 0.02^2) and the last layer of the head at zero. Layers are PyTorch's own.
"""

from collections.abc import Callable
from typing import cast

import torch
from energy_head_cost import LiteralEnergyHead
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    dropout,
    linear,
    scaled_dot_product_attention,
    silu,
)

from calmkit.autoencoders import MLPAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM

__all__ = ["PublishedAutoencoder", "PublishedModel", "PublishedStep", "initialize"]


class GatedBlock(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x)))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's branch."""
        y = self.norm(x)
        return x + self.down(silu(self.gate(y)) * self.up(y))


class PublishedAutoencoder(nn.Module):
    """Chunks of K tokens to a Gaussian over one latent, and back to logits."""

    def __init__(self, chunk: int, vocab: int, latent: int, *, width: int, inner: int) -> None:
        super().__init__()
        self.chunk, self.width = chunk, width
        self.embedding = nn.Embedding(vocab, width)
        self.encode_token = GatedBlock(width, inner)
        self.squeeze = nn.Linear(chunk * width, width)
        self.encode_chunk = GatedBlock(width, inner)
        self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.to_posterior = nn.Linear(width, 2 * latent)
        self.from_latent = nn.Linear(latent, width)
        self.decode_chunk = GatedBlock(width, inner)
        self.expand = nn.Linear(width, chunk * width)
        self.decode_token = GatedBlock(width, inner)
        self.decoder_norm = nn.RMSNorm(width, eps=1e-6)

    def copy(self, ours: MLPAutoencoder) -> "PublishedAutoencoder":
        """Take the weights of calmkit's autoencoder, but for its mask."""
        blocks = {
            "encoder_token_blocks": "encode_token",
            "encoder_chunk_blocks": "encode_chunk",
            "decoder_chunk_blocks": "decode_chunk",
            "decoder_token_blocks": "decode_token",
        }
        weights = {}
        for name, value in ours.state_dict().items():
            first, _, rest = name.partition(".")
            if first in blocks:
                name = f"{blocks[first]}.{rest.removeprefix('0.').removeprefix('feed_forward.')}"
            weights[name] = value
        del weights["mask_embedding"]
        self.load_state_dict(weights)
        return self

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each chunk."""
        x = self.encode_token(self.embedding(tokens)).flatten(-2)
        x = self.encoder_norm(self.encode_chunk(self.squeeze(x)))
        mean, log_std = self.to_posterior(x).chunk(2, dim=-1)
        return mean, log_std.exp()

    def decode(self, latents: Tensor) -> Tensor:
        """Logits of the K tokens of each latent."""
        x = self.expand(self.decode_chunk(self.from_latent(latents)))
        x = self.decode_token(x.unflatten(-1, (self.chunk, self.width)))
        return linear(self.decoder_norm(x), self.embedding.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """K times the mean cross entropy, and 0.001 of the KL, clipped at 0.5 a dimension."""
        kept = torch.rand(tokens.shape) >= 0.15
        mean, std = self.encode(tokens * kept)  # a dropped token is token 0
        latents = dropout(mean + std * torch.randn_like(mean), 0.15)
        logits = self.decode(latents).flatten(0, -2)
        kl = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log())
        return (
            self.chunk * cross_entropy(logits, tokens.flatten())
            + 1e-3 * kl.clamp(min=0.5).sum(-1).mean()
        )


class Layer(nn.Module):
    """A layer of Llama: causal attention with rotary positions, then a gated feed-forward."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.feed_forward = GatedBlock(width, inner)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer to (rows, positions, width)."""
        y = self.norm(x)
        q, k, v = (
            project(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        q, k = (z * cos + _half_turn(z) * sin for z in (q, k))
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.feed_forward(x + self.output(y.transpose(1, 2).flatten(-2)))


class PublishedModel(nn.Module):
    """Tokens of a chunk to a vector, a Llama over vectors, the energy head, the energy loss."""

    def __init__(
        self,
        autoencoder: PublishedAutoencoder,
        head: EnergyHead,
        *,
        depth: int,
        heads: int,
        inner: int,
    ) -> None:
        """Build around a trained autoencoder and the weights of a head of calmkit."""
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        vocab, width = autoencoder.embedding.num_embeddings, head.cond_size
        self.embedding = nn.Embedding(vocab, width)
        self.input = nn.Sequential(
            nn.Linear(autoencoder.chunk * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width, eps=1e-6),
        )
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = LiteralEnergyHead(head)
        self.samples, self.targets, self.noise_size = head.num_samples, 100, head.noise_size

    def give_weights(self, model: CALM) -> None:
        """Copy all weights but the autoencoder's to a model of calmkit."""
        layers = {
            "norm": "attention_norm",
            "feed_forward.norm": "feed_forward_norm",
            **{f"{x}": f"attention.{x}" for x in ("query", "key", "value", "output")},
            **{f"feed_forward.{x}": f"feed_forward.{x}" for x in ("gate", "up", "down")},
        }
        weights = {f"backbone.norm.{k}": v for k, v in self.norm.state_dict().items()}
        for name, value in self.layers.state_dict().items():
            number, _, part = name.partition(".")
            weights[f"backbone.layers.{number}.{layers[part.removesuffix('.weight')]}.weight"] = (
                value
            )
        for name, value in self.input.state_dict(prefix="input_encoder.mlp.").items():
            weights[name] = value
        weights["input_encoder.tokens.weight"] = self.embedding.weight
        for name, value in self.head.state_dict().items():
            place, _, part = name.partition(".join.")
            if part == "weight":
                of_hidden, of_cond = value.chunk(2, dim=1)
                weights[f"head.{place}.from_hidden.weight"] = of_hidden
                weights[f"head.{place}.from_cond.weight"] = of_cond
            else:
                weights[f"head.{place}{'.from_cond.' * bool(part)}{part}"] = value
        rest = {k: v for k, v in model.state_dict().items() if k.startswith("autoencoder.")}
        model.load_state_dict(weights | rest)

    def states(self, tokens: Tensor) -> Tensor:
        """The state after each chunk of (rows, positions, K)."""
        x = self.input(self.embedding(tokens).flatten(-2))
        cos, sin = _rotary(x.shape[1], x.shape[2] // self.layers[0].heads)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def loss(self, tokens: Tensor) -> Tensor:
        """The energy loss of every next chunk, twice calmkit's score; estimated with M targets."""
        states = self.states(tokens)[:, :-1].flatten(0, 1)
        with torch.no_grad():
            mean, std = self.autoencoder.encode(tokens)
            mean, std = (x[:, 1:].flatten(0, 1) for x in (mean, std))
            targets = mean + std * torch.randn(self.targets, *mean.shape)
        noise = torch.rand(self.samples, len(states), self.noise_size) - 0.5
        samples = self.head.sample_from(states, noise)
        near = torch.linalg.norm(samples[:, None] - targets[None], dim=-1).mean((0, 1))
        apart = torch.linalg.norm(samples[:, None] - samples[None], dim=-1).sum((0, 1))
        return (2 * near - apart / (self.samples * (self.samples - 1))).mean()


def initialize(model: nn.Module, but: nn.Module | None = None) -> None:
    """Weights as in the published code, apart from those of one part."""
    kept = set() if but is None else set(but.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module not in kept:
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(model, PublishedModel):
        nn.init.zeros_(cast(nn.Linear, model.head.output[2]).weight)


class PublishedStep:
    """The published training step: loss, clipping, AdamW, a rate that is constant once warm.

    Args:
        module: What is trained, on the CPU.
        batch_at: The batch of a step.
        rate: Learning rate.
        warmup: Steps over which the rate rises.
        lower: Whether to compute in bfloat16.
    """

    def __init__(
        self,
        module: PublishedModel | PublishedAutoencoder,
        batch_at: Callable[[int], ChunkBatch],
        *,
        rate: float,
        warmup: int = 1,
        lower: bool = False,
    ) -> None:
        self.module, self.steps = module, 0
        self._trained = [p for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.1
        )
        self._batch_at, self._rate, self._warmup, self._lower = batch_at, rate, warmup, lower

    def __call__(self) -> None:
        """Take a step."""
        tokens = self._batch_at(self.steps).tokens
        with torch.autocast("cpu", torch.bfloat16, enabled=self._lower):
            loss = self.module.loss(tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * min(1.0, (self.steps + 1) / self._warmup)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.steps += 1


def _rotary(length: int, size: int) -> tuple[Tensor, Tensor]:
    rates = 10000.0 ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(length)[:, None] * torch.cat([rates, rates])
    return angles.cos(), angles.sin()


def _half_turn(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
