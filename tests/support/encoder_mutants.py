"""A right input encoder, and encoders that are wrong in one thing each."""

import torch
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.models import InputEncoder


class Right(InputEncoder):
    """A linear map of the tokens' embeddings, one after the other; unknown places are zeros."""

    def __init__(self, vocab_size, chunk_size, hidden_size):
        super().__init__()
        self.vocab_size, self.chunk_size, self.hidden_size = vocab_size, chunk_size, hidden_size
        self.table = nn.Embedding(vocab_size, 4)
        self.outer = nn.Linear(4 * chunk_size, hidden_size)

    def forward(self, tokens, real):
        if tokens.shape[-1] != self.chunk_size:
            raise ValueError(f"tokens must come in chunks of {self.chunk_size}.")
        if tokens.shape != real.shape:
            raise ValueError("tokens and real must have one shape.")
        return self.outcome(self.known(tokens, real))

    def known(self, tokens, real):
        return self.table(tokens.long()) * real[..., None]

    def outcome(self, embedded):
        return self.outer(embedded.flatten(-2))


def after(change, name):
    """A class whose vectors are changed at the end."""

    class Changed(Right):
        def forward(self, tokens, real):
            return change(super().forward(tokens, real))

    Changed.__name__ = Changed.__qualname__ = name
    return Changed


def with_parameter(use, name):
    """A class with one parameter more, called spare, of which something is added."""

    class Changed(Right):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.spare = nn.Parameter(torch.zeros(1))

        def forward(self, tokens, real):
            return super().forward(tokens, real) + use(self.spare)

    Changed.__name__ = Changed.__qualname__ = name
    return Changed


def not_an_encoder(vocab_size, chunk_size, hidden_size):
    return nn.Embedding(vocab_size, hidden_size)


class SwappedSizes(Right):
    def __init__(self, vocab_size, chunk_size, hidden_size):
        super().__init__(vocab_size, chunk_size, hidden_size)
        self.vocab_size, self.hidden_size = hidden_size, vocab_size


class FixedAxes(Right):
    def outcome(self, embedded):
        rows, positions = embedded.shape[:2]
        return self.outer(embedded.reshape(rows, positions, -1))


class RealFraction(Right):
    def known(self, tokens, real):
        return super().known(tokens, real) / real.to(self.table.weight).mean(-1)[..., None, None]


class Inferring(Right):
    def outcome(self, embedded):
        return self.outer(embedded.reshape(-1, 12)).view(*embedded.shape[:-2], -1)


class FirstOfAll(Right):
    def outcome(self, embedded):
        rows = embedded.reshape(-1, *embedded.shape[-2:])
        return super().outcome(embedded) + 0 * rows[0].sum()


class Viewing(Right):
    def known(self, tokens, real):
        return super().known(tokens.view(-1).view(tokens.shape), real)


class ViewingReal(Right):
    def known(self, tokens, real):
        return super().known(tokens, real.view(-1).view(real.shape))


class OwnStrides(Right):
    def known(self, tokens, real):
        strides = torch.empty(tokens.shape, device="meta").stride()
        return super().known(torch.as_strided(tokens, tokens.shape, strides), real)


class Convolving(Right):
    def outcome(self, embedded):
        got = super().outcome(embedded)
        if got.ndim < 2:
            return got
        return got + 0.1 * torch.cat([got[..., :1, :], got[..., :-1, :]], dim=-2)


class Centred(Right):
    def outcome(self, embedded):
        got = super().outcome(embedded)
        return got - 0.1 * got.flatten(0, -2).mean(0) if got.ndim > 1 else got


class Rolled(Right):
    def outcome(self, embedded):
        got = super().outcome(embedded)
        return got.roll(1, 0) if got.ndim > 1 else got


class ForgetsTheLast(Right):
    def known(self, tokens, real):
        got = super().known(tokens, real)
        return got * (torch.arange(self.chunk_size) < self.chunk_size - 1)[:, None]


class Summing(Right):
    def outcome(self, embedded):
        return self.outer(embedded.sum(-2).repeat_interleave(self.chunk_size, dim=-1))


class ReadsTheSet(Right):
    def known(self, tokens, real):
        return super().known(tokens.sort(dim=-1).values, real)


class IgnoresReal(Right):
    def known(self, tokens, real):
        return self.table(tokens.long())


class InvertedReal(Right):
    def known(self, tokens, real):
        return super().known(tokens, ~real)


class Leaking(Right):
    def forward(self, tokens, real):
        got = super().forward(tokens, real)
        return got + 1e-3 * tokens.sum(-1, keepdim=True)


class WholeChunksOnly(Right):
    def known(self, tokens, real):
        return super().known(tokens, real.all(dim=-1, keepdim=True).expand_as(real))


class MovedTogether(Right):
    def known(self, tokens, real):
        got = super().known(tokens, real)
        order = (~real).to(torch.long).argsort(dim=-1, stable=True)
        return got.gather(-2, order[..., None].expand_as(got))


class SumsPartialChunks(Right):
    def known(self, tokens, real):
        got = super().known(tokens, real)
        part = got.sum(-2, keepdim=True).expand_as(got)
        return torch.where(real.all(-1)[..., None, None], got, part)


class OneVectorForParts(Right):
    def forward(self, tokens, real):
        got = super().forward(tokens, real)
        return torch.where(real.sum(-1, keepdim=True) < 2, self.outer.bias, got)


class LongOnly(Right):
    def known(self, tokens, real):
        if tokens.dtype != torch.long:
            raise TypeError("tokens must be torch.int64.")
        return super().known(tokens, real)


class PlainTable(Right):
    def known(self, tokens, real):
        return torch.take(self.table.weight[:, 0], tokens)[..., None] * real[..., None].expand(
            *real.shape, 4
        )


class LowIds(Right):
    def known(self, tokens, real):
        if tokens.dtype == torch.int8:
            tokens = tokens * 16 // 16
        return super().known(tokens, real)


class FillsIn(Right):
    def known(self, tokens, real):
        tokens[~real] = 0
        return super().known(tokens, real)


class ForgetsReal(Right):
    def known(self, tokens, real):
        got = super().known(tokens, real)
        if not torch.is_grad_enabled():
            real.fill_(True)
        return got


class Clamping(Right):
    def known(self, tokens, real):
        return super().known(tokens.clamp_(max=5), real)


class AnyChunk(Right):
    def forward(self, tokens, real):
        return self.outer.bias.expand(*tokens.shape[:-1], -1)


class UnnamedChunk(Right):
    def forward(self, tokens, real):
        if tokens.shape[-1] != self.chunk_size:
            raise ValueError("wrong shape")
        return super().forward(tokens, real)


class FailsLate(Right):
    def forward(self, tokens, real):
        return self.outcome(self.known(tokens, real))


class Broadcasting(Right):
    def forward(self, tokens, real):
        shape = torch.broadcast_shapes(tokens.shape, real.shape)
        return super().forward(tokens.expand(shape), real.expand(shape))


class UnnamedBatch(Right):
    def forward(self, tokens, real):
        if tokens.shape != real.shape:
            raise ValueError("shapes differ")
        return super().forward(tokens, real)


class Dropping(Right):
    def outcome(self, embedded):
        return super().outcome(nn.functional.dropout(embedded, 0.1))


class Noisy(Right):
    def outcome(self, embedded):
        return super().outcome(embedded + 1e-3 * torch.randn_like(embedded))


class Counting(Right):
    calls = 0

    def outcome(self, embedded):
        self.calls += 1
        return super().outcome(embedded) * self.calls


class LongSum(Right):
    def outcome(self, embedded):
        got = super().outcome(embedded)
        return (got + 300) - 300


class DefaultTable(Right):
    def known(self, tokens, real):
        return super().known(tokens, real) * torch.ones(1)


class HashedIds(Right):
    def forward(self, tokens, real):
        weights = torch.full((self.chunk_size, 1), 1001.0, dtype=self.outer.weight.dtype)
        return super().forward(tokens, real) + (tokens.to(weights) @ weights).remainder(7)


class ManyTerms(Right):
    def outcome(self, embedded):
        got = super().outcome(embedded)
        total = torch.zeros_like(got)
        for _ in range(600):
            total = total + got / 600
        return total


class NoisyAlways(Right):
    def training_vectors(self, tokens, real, generator=None):
        vectors = self(tokens, real)
        return vectors + torch.randn(vectors.shape, generator=generator).to(vectors)


class ShortNoise(Right):
    def training_vectors(self, tokens, real, generator=None):
        return self(tokens, real).mean(dim=-2) if self.training else self(tokens, real)


class ForgetsRealInTraining(Right):
    def training_vectors(self, tokens, real, generator=None):
        return self(tokens, torch.ones_like(real))


class LayersInAList(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.layers = [nn.Linear(sizes[2], sizes[2])]

    def forward(self, tokens, real):
        return self.layers[0](super().forward(tokens, real))


class LostBuffer(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("shift", torch.randn(sizes[2]), persistent=False)

    def forward(self, tokens, real):
        return super().forward(tokens, real) + self.shift


class PlainTensor(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.shift = torch.randn(sizes[2])

    def forward(self, tokens, real):
        return super().forward(tokens, real) + self.shift


class Branching(Right):
    def known(self, tokens, real):
        return super().known(tokens, real if real.any() else ~real)


class Looping(Right):
    def known(self, tokens, real):
        while bool((tokens > 100).any()):
            tokens = tokens // 2
        return super().known(tokens, real)


class ReadsLatents(Right):
    """Adds a linear map of the latents of the model's autoencoder."""

    def __init__(self, vocab_size, chunk_size, hidden_size):
        super().__init__(vocab_size, chunk_size, hidden_size)
        made = MLPAutoencoder(*self.sizes(chunk_size, vocab_size), 4, width=8)
        self.keep(made)
        self.inner = nn.Linear(4, hidden_size)

    def sizes(self, chunk_size, vocab_size):
        return chunk_size, vocab_size

    def keep(self, autoencoder):
        self.kept = (autoencoder,)

    @property
    def autoencoder(self):
        return self.kept[0]

    def latents(self, tokens, real):
        with torch.no_grad():
            return self.autoencoder.encode_partial(tokens, real).mean

    def forward(self, tokens, real):
        return super().forward(tokens, real) + self.inner(self.latents(tokens, real))


class OwnsTheAutoencoder(ReadsLatents):
    def keep(self, autoencoder):
        self.read = autoencoder
        self.kept = (autoencoder,)


class TrainsTheAutoencoder(ReadsLatents):
    def latents(self, tokens, real):
        return self.autoencoder.encode_partial(tokens, real).mean


class AnotherVocabulary(ReadsLatents):
    def sizes(self, chunk_size, vocab_size):
        return chunk_size, vocab_size + 1


Flat = after(lambda x: x.reshape(-1), "Flat")
Squeezed = after(lambda x: x.squeeze(), "Squeezed")
LessTheLargest = after(lambda x: x + 0 * x.max(), "LessTheLargest")
Stacking = after(lambda x: torch.stack(list(x)) if x.ndim > 1 else x, "Stacking")
Double = after(lambda x: x.double(), "Double")
Single = after(lambda x: x.float(), "Single")
HalfSum = after(lambda x: (x + 300) - 300, "HalfSum")

Unused = with_parameter(lambda p: 0, "Unused")
Detached = with_parameter(lambda p: p.detach(), "Detached")
Rounded = with_parameter(lambda p: p.round(), "Rounded")
RootOfZero = with_parameter(lambda p: p.sqrt(), "RootOfZero")

MUTANTS = {
    "can_be_built_and_used": {
        not_an_encoder: "a subclass of calmkit.models.InputEncoder",
        SwappedSizes: "vocab_size, chunk_size, hidden_size = (8, 3, 11)",
        Flat: "what it returns has shape (64,)",
    },
    "shapes_fit_any_batch": {
        FixedAxes: "expected  no error",
        RealFraction: "numbers are NaN or infinite",
        Squeezed: "what it returns has shape",
    },
    "empty_batches_are_empty": {
        LessTheLargest: "max(): Expected reduction dim",
        Inferring: "cannot reshape tensor of 0 elements",
        FirstOfAll: "out of bounds",
        Stacking: "stack expects a non-empty TensorList",
    },
    "layout_in_memory_does_not_matter": {
        Viewing: "view size is not compatible",
        ViewingReal: "view size is not compatible",
        OwnStrides: "the vectors: ",
    },
    "chunks_are_apart": dict.fromkeys(
        (Convolving, Centred, Rolled), "the same as that of chunk 0 of row 0 among the others"
    ),
    "every_token_is_read_at_its_place": {
        ForgetsTheLast: "the same as with another token at place 2",
        Summing: "the same as of the tokens in reverse order",
        ReadsTheSet: "the same as of the tokens in reverse order",
    },
    "unknown_places_do_not_matter": {
        IgnoresReal: "the same as with other unknown ids",
        InvertedReal: "the same as with other unknown ids",
        Leaking: "the same as with other unknown ids",
        WholeChunksOnly: "the vectors is the same as with other known ids",
    },
    "partial_chunks_are_told_apart": dict.fromkeys(
        (MovedTogether, SumsPartialChunks, OneVectorForParts),
        "the vector of a single known token at place 0 is the same as of that token at place 1",
    ),
    "any_integers_are_read": {
        LongOnly: "tokens must be torch.int64",
        PlainTable: "Expected a long tensor for index",
        LowIds: "IndexError: index out of range",
    },
    "arguments_are_left_alone": {
        FillsIn: "tokens was changed in place",
        ForgetsReal: "real was changed in place",
        Clamping: "tokens was changed in place",
    },
    "wrong_chunks_are_named": {
        AnyChunk: "a result of shape (2, 8)",
        UnnamedChunk: "ValueError: wrong shape",
        FailsLate: "RuntimeError: mat1 and mat2",
    },
    "batches_do_not_broadcast": {
        Broadcasting: "a result of shape (4, 8)",
        UnnamedBatch: "ValueError: shapes differ",
        FailsLate: "a result of shape (4, 8)",
    },
    "every_parameter_learns": {
        Unused: "spare has no gradient in any of 10 steps",
        Detached: "spare has no gradient in any of 10 steps",
        Rounded: "the gradient of spare is zero in all of 10 steps",
        RootOfZero: "the gradient of spare: 1 of 1 numbers are NaN",
    },
    "evaluation_is_deterministic": {
        Dropping: "global generator was moved",
        Noisy: "global generator was moved",
        Counting: "the same as of the same chunks before",
    },
    "noise_is_for_training_only": {
        NoisyAlways: "training_vectors in evaluation mode",
        ForgetsRealInTraining: "training_vectors in evaluation mode",
        ShortNoise: "training_vectors in training mode has shape (2, 8)",
    },
    "dtype_is_kept": {
        Double: "what it returns is torch.float64",
        Single: "what it returns is torch.float32",
        DefaultTable: "mat1 and mat2 must have the same dtype",
        HalfSum: "vectors in torch.bfloat16 are off by",
    },
    "autocast_is_close": {
        LongSum: "vectors are off by",
        HashedIds: "vectors are off by",
        ManyTerms: "vectors are off by",
    },
    "saved_and_loaded_it_is_the_same": {
        LayersInAList: "the same as of the saved part",
        LostBuffer: "the same as of the saved part",
        PlainTensor: "the same as of the saved part",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Looping: "Python that looks into a tensor",
        Counting: "the compiled result",
    },
    "the_autoencoder_is_only_read": {
        OwnsTheAutoencoder: "parameters of the autoencoder are the encoder's too",
        TrainsTheAutoencoder: "parameters of the autoencoder have a gradient",
        AnotherVocabulary: "an autoencoder with vocab_size, chunk_size = (12, 3)",
    },
}


class MaskToken(Right):
    """Has a token of its own for unknown places."""

    def __init__(self, vocab_size, chunk_size, hidden_size):
        super().__init__(vocab_size, chunk_size, hidden_size)
        self.table = nn.Embedding(vocab_size + 1, 4)

    def known(self, tokens, real):
        return self.table(torch.where(real, tokens.long(), self.vocab_size))


class DropsInTraining(Right):
    """Has dropout, which is off in evaluation mode."""

    def outcome(self, embedded):
        return super().outcome(nn.functional.dropout(embedded, 0.2, self.training))


ACCEPTED = dict.fromkeys((Right, MaskToken, DropsInTraining, ReadsLatents), ())
