"""Parts made of what calmkit knows nothing of: a Llama of transformers, logits.

Each is followed by itself with one mistake; so is a head made of a flow of zuko.
"""

from dataclasses import dataclass

import torch
from torch import nn

from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.heads import SplineFlowHead, check_num_samples
from calmkit.sampling import SampledChunks


class UnseededFlowHead(SplineFlowHead):
    """Samples as zuko does by itself, from torch's global generator."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size, width=16, depth=1, transforms=1)

    def sample(self, cond, num_samples, generator=None):
        self._check_cond(cond)
        check_num_samples(num_samples)
        return self.flow(cond).sample((num_samples,))


class LlamaBackbone(Backbone):
    """A Llama that reads vectors instead of tokens; whole rows only."""

    def __init__(self, hidden_size):
        from transformers import LlamaConfig, LlamaModel

        super().__init__(hidden_size)
        self.llama = LlamaModel(
            LlamaConfig(
                vocab_size=3, hidden_size=hidden_size, intermediate_size=2 * hidden_size,
                num_hidden_layers=2, num_attention_heads=2, attn_implementation="eager",
            )
        )  # fmt: skip
        self.llama.embed_tokens = nn.Identity()  # it is not used, and would never learn

    def forward(self, vectors, mask=None, cache=None):
        mask = self._check_input(vectors, mask, cache)
        rows, positions, _ = vectors.shape
        visible = self.visible(mask, positions, vectors.device).expand(rows, 1, -1, -1)
        hidden = torch.zeros_like(visible, dtype=vectors.dtype)
        hidden = hidden.masked_fill(~visible, torch.finfo(vectors.dtype).min)
        return self.llama(inputs_embeds=vectors, attention_mask=hidden).last_hidden_state

    def visible(self, mask, positions, device):
        dense = mask.dense(positions, positions, device)
        return dense.view(-1, 1, positions, positions)

    def new_cache(self, batch_size, capacity):
        raise NotImplementedError("this Llama reads whole rows")


class SeeingLlamaBackbone(LlamaBackbone):
    """Forgets the mask of packed documents."""

    def visible(self, mask, positions, device):
        return super().visible(AttentionMask.causal(), positions, device)


@dataclass(frozen=True)
class LogitSampler:
    """Takes logits that a model of one's own shows, and draws by Gumbel's trick."""

    temperature: float = 1.0

    def __call__(self, draw, generator=None):
        logits = getattr(draw, "logits", None)
        if logits is None:
            raise ValueError("draw must show its logits; this black box can only be drawn from.")
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
        tokens = (self.scaled(logits) - (-uniform.log()).log()).argmax(dim=-1)
        ones = torch.ones_like(tokens)
        return SampledChunks(tokens[..., None], ones, ones.bool())

    def scaled(self, logits):
        return logits / self.temperature


class HotLogitSampler(LogitSampler):
    """Multiplies where it should divide."""

    def scaled(self, logits):
        return logits * self.temperature
