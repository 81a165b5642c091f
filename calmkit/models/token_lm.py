r"""TokenLM: the autoregressive softmax baseline, on the same backbones.

    token t --embedding--> vector --backbone--> state h_t --output--> logits of token t + 1

Its loss is the cross entropy in nats; the exponential of its mean is the perplexity. Chunks hold
one token, so that data, training, evaluation and generation are shared with `CALM`.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from calmkit.backbones import Backbone
from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.finite import require_finite
from calmkit.nn import vocabulary_nats
from calmkit.sampling import Sampler, SoftmaxSampler, drawable
from calmkit.typing import typed

from .base import LanguageModel, ModelLoss
from .input_encoder import InputEncoder

__all__ = ["TokenDraws", "TokenEmbedding", "TokenLM"]


class TokenEmbedding(InputEncoder):
    """Embeds chunks of one token."""

    chunk_size = 1

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        """Build the embedding table, with entries of variance `1 / hidden_size`.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__()
        check_at_least(1, vocab_size=vocab_size, hidden_size=hidden_size)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.tokens = nn.Embedding(vocab_size, hidden_size)
        nn.init.normal_(self.tokens.weight, std=1 / math.sqrt(hidden_size))

    @typed
    def forward(
        self, tokens: Int[Tensor, "*batch 1"], real: Bool[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Embed tokens; places without text become zero."""
        return self.tokens(tokens[..., 0].long()) * real


class TokenLM(LanguageModel):
    """Autoregressive language model with a softmax over tokens."""

    chunk_size = 1

    def __init__(
        self, vocab_size: int, *, backbone: Backbone, tie_embeddings: bool = False
    ) -> None:
        """Add an embedding and an output layer to a backbone.

        Args:
            vocab_size: Number of token ids.
            backbone: Maps vectors to states.
            tie_embeddings: Whether the output layer shares the weights of the embedding.

        Raises:
            ValueError: If `vocab_size` is not positive.
        """
        super().__init__()
        self.backbone = backbone
        self.input_encoder = TokenEmbedding(vocab_size, backbone.hidden_size)
        self.output = nn.Linear(backbone.hidden_size, vocab_size, bias=False)
        if tie_embeddings:
            self.output.weight = self.input_encoder.tokens.weight
        else:
            nn.init.normal_(self.output.weight, std=1 / math.sqrt(backbone.hidden_size))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.output.out_features

    @typed
    def logits(self, states: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token, in float32 at least."""
        logits = linear(states, self.output.weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @typed
    def loss(self, batch: ChunkBatch, generator: torch.Generator | None = None) -> ModelLoss:
        """Cross entropy for every next token, in nats; see `LanguageModel.loss`."""
        if batch.tokens.shape[2] != 1:
            raise ValueError(
                f"batch must hold chunks of one token for a TokenLM; got {batch.tokens.shape[2]}."
            )
        states, target = self._predicting_states(batch, generator), batch.tokens[:, 1:, 0]
        nats = vocabulary_nats(states, self.output.weight, target)
        return ModelLoss.over(nats, batch.predictable()[:, 1:])

    @typed
    def draws(
        self, states: Float[Tensor, "*batch hidden"], generator: torch.Generator | None = None
    ) -> "TokenDraws":
        """The next token given states; see `LanguageModel.draws`.

        Raises:
            NonFiniteError: If states or logits are not finite.
        """
        require_finite("states of the backbone", states)
        logits = self.logits(states)
        require_finite("logits of the softmax", logits)
        return TokenDraws(logits, generator)

    def sampler_at(
        self,
        temperature: float,
        *,
        candidates: int = 64,
        exact: bool = False,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> Sampler:
        """The sharpened softmax, which is exact and has no candidates; 0 is greedy."""
        if temperature == 0:
            return SoftmaxSampler(top_k=1)
        return SoftmaxSampler(temperature, top_k, top_p)


class TokenDraws:
    """Tokens of a softmax as a black box that also exposes its logits.

    Attributes:
        logits: Logits of the softmax, (*batch, vocab).
    """

    def __init__(self, logits: Tensor, generator: torch.Generator | None) -> None:
        """Store the logits without drawing."""
        self.logits, self._generator = logits, generator

    def __call__(self, n: int) -> Tensor:
        """Draw n tokens of every row, (n, *batch, 1)."""
        rows = self.logits.reshape(-1, self.logits.shape[-1]).softmax(dim=-1)
        rows = drawable(rows)
        if len(rows) == 0:
            return torch.zeros(n, *self.logits.shape[:-1], 1, dtype=torch.long).to(rows.device)
        drawn = torch.multinomial(rows, n, replacement=True, generator=self._generator)
        return drawn.T.reshape(n, *self.logits.shape[:-1], 1)

    def select(self, rows: Int[Tensor, " chosen"]) -> "TokenDraws":
        """The same for some rows of the flattened batch."""
        logits = self.logits.reshape(-1, self.logits.shape[-1])
        return TokenDraws(logits[rows], self._generator)
