"""Parts made of what calmkit knows nothing of: a flow of zuko, a Llama of transformers, logits.

Each is followed by itself with one mistake.
"""

from dataclasses import dataclass

import torch
from torch import nn

from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.distributions import standard_normal
from calmkit.heads import Head, check_num_samples
from calmkit.sampling import SampledChunks


class ZukoHead(Head):
    """A neural spline flow: an exact density, and samples through the inverse."""

    def __init__(self, cond_size, latent_size):
        import zuko

        super().__init__(cond_size, latent_size)
        self.flow = zuko.flows.NSF(latent_size, cond_size, transforms=1, hidden_features=(16,))

    @property
    def evaluations_per_sample(self):
        return self.latent_size  # the inverse of an autoregressive map goes place by place

    def log_prob(self, cond, latents):
        self._check_cond(cond)
        latents = self._checked_latents(latents)
        if latents.shape[:-1] != cond.shape[:-1]:
            raise ValueError(
                f"latents must have the batch of cond, {tuple(cond.shape[:-1])}; got "
                f"{tuple(latents.shape[:-1])}."
            )
        return self.flow(self._read(cond)).log_prob(self._read(latents))

    def loss(self, cond, target, generator=None):
        target = self._checked_target(target)
        return -self.log_prob(cond, target.sample(1, generator)[0])

    def sample(self, cond, num_samples, generator=None):
        self._check_cond(cond)
        check_num_samples(num_samples)
        shape = (num_samples, *cond.shape[:-1], self.latent_size)
        noise = standard_normal(shape, generator, dtype=self._dtype(), device=cond.device)
        return self.flow(self._read(cond)).transform.inv(noise)


class UnseededZukoHead(ZukoHead):
    """Samples as zuko does by itself, from torch's global generator."""

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
