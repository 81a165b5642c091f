"""A right autoencoder, and autoencoders that are wrong in one thing each."""

import torch
from torch import nn

from calmkit.autoencoders import AutoencoderLoss, ChunkAutoencoder
from calmkit.distributions import DiagonalGaussian


class Right(ChunkAutoencoder):
    """A linear encoder with its own table for each place, and a linear decoder."""

    def __init__(self, chunk_size, vocab_size, latent_size):
        super().__init__(chunk_size, vocab_size, latent_size)
        self.encoder = nn.Embedding(chunk_size * vocab_size, latent_size)
        self.decoder = nn.Linear(latent_size, chunk_size * vocab_size)

    def mean(self, tokens):
        self._check_chunks(tokens)
        place = torch.arange(self.chunk_size) * self.vocab_size
        return self.encoder(tokens + place).sum(dim=-2)

    def encode(self, tokens):
        mean = self.mean(tokens)
        return DiagonalGaussian(mean, torch.full_like(mean, 0.1))

    def decode(self, latents):
        self._check_latents(latents)
        return self.decoder(latents).unflatten(-1, (self.chunk_size, self.vocab_size))

    def drawn(self, posterior, generator):
        if not self.training:
            return posterior.mean
        noise = torch.randn(posterior.mean.shape, generator=generator, dtype=posterior.mean.dtype)
        return posterior.rsample_from(noise[None])[0]

    def nll(self, latents, tokens):
        logits = self.decode(latents)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0].sum(-1)

    def loss(self, tokens, generator=None):
        posterior = self.encode(tokens)
        nll = self.nll(self.drawn(posterior, generator), tokens)
        kl = posterior.kl_to_standard_normal().sum(-1).to(nll.dtype)
        return AutoencoderLoss(total=nll + 1e-3 * kl, reconstruction=nll, kl=kl)


def not_an_autoencoder(chunk_size, vocab_size, latent_size):
    return nn.Embedding(vocab_size, latent_size)


class SwappedSizes(Right):
    def __init__(self, chunk_size, vocab_size, latent_size):
        super().__init__(chunk_size, vocab_size, latent_size)
        self.vocab_size, self.latent_size = latent_size, vocab_size

    def mean(self, tokens):
        return super().mean(tokens)


class MeanLoss(Right):
    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        return AutoencoderLoss(loss.total.mean(), loss.reconstruction.mean(), loss.kl.mean())


class WithoutPlaces(Right):
    def decode(self, latents):
        return super().decode(latents).flatten(-2)


class FlatLoss(Right):
    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        flat = loss.kl.reshape(-1)
        return AutoencoderLoss(flat, flat, flat)


class Squeezing(Right):
    def encode(self, tokens):
        posterior = super().encode(tokens)
        return DiagonalGaussian(posterior.mean.squeeze(0), posterior.std.squeeze(0))


class LessTheLargest(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        return mean + 0 * mean.max()


class Guessing(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        return mean.reshape(*tokens.shape[:-1], -1, 1)[..., 0]


class Stacking(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        return torch.stack(list(mean)) if mean.ndim > 1 else mean


class SummedPlaces(Right):
    def decode(self, latents):
        logits = super().decode(latents)
        return logits.sum(0) if logits.ndim > 4 else logits


class CentredBatch(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        return mean - mean.mean(0, keepdim=True) if mean.ndim > 1 else mean


class RolledBatch(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        return mean.roll(1, 0) if mean.ndim > 1 else mean


class CentredLoss(Right):
    def nll(self, latents, tokens):
        nll = super().nll(latents, tokens)
        return nll + 0.1 * nll.mean()


class DropsInEncode(Right):
    def mean(self, tokens):
        return nn.functional.dropout(super().mean(tokens), 0.2, self.training)


class ShiftsInTraining(Right):
    def mean(self, tokens):
        return super().mean(tokens) * (1.1 if self.training else 1.0)


class BagOfTokens(Right):
    def mean(self, tokens):
        self._check_chunks(tokens)
        return self.encoder(tokens).sum(dim=-2)


class SecondBest(Right):
    def decode_tokens(self, latents):
        self._check_latents(latents)
        return self.decode(latents).topk(2, dim=-1).indices[..., 1]


class DrawsTokens(Right):
    def decode_tokens(self, latents):
        self._check_latents(latents)
        logits = self.decode(latents).flatten(0, -2)
        return logits.softmax(-1).multinomial(1).view(*latents.shape[:-1], self.chunk_size)


class DecodesReversed(Right):
    def decode_tokens(self, latents):
        return super().decode_tokens(latents).flip(-1)


class NextPlace(Right):
    def logits_at(self, started, place):
        return super().logits_at(started, (place + 1) % self.chunk_size)


class FirstPlace(Right):
    def tokens_at(self, started, places):
        return super().tokens_at(started, range(len(places)))


class ScaledStart(Right):
    def start_decoding(self, latents):
        return 0.9 * latents


class MeanNats(Right):
    def token_nats(self, latents, tokens):
        nats = super().token_nats(latents, tokens)
        return nats.mean(dim=-1, keepdim=True).expand_as(nats)


class SummedNats(Right):
    def token_nats(self, latents, tokens):
        return super().token_nats(latents, tokens).sum(dim=-1)


class DetachedNats(Right):
    def token_nats(self, latents, tokens):
        return super().token_nats(latents.detach(), tokens) + 0 * latents.sum()


class ReadsUnknown(Right):
    def encode_partial(self, tokens, real):
        return self.encode(tokens)


class InvertedReal(Right):
    def encode_partial(self, tokens, real):
        return self.encode(torch.where(real, 0, tokens))


class WholeChunksOnly(Right):
    def encode_partial(self, tokens, real):
        return self.encode(torch.where(real.all(-1, keepdim=True), tokens, 0))


class HalfUnknown(Right):
    def encode_partial(self, tokens, real):
        known = self.encode(torch.where(real, tokens, 0)).mean
        mean = known + 1e-3 * self.mean(tokens)
        return DiagonalGaussian(mean, torch.full_like(mean, 0.1))


class ReadsTheChunkBefore(Right):
    def encode_rows(self, batch):
        mean = self.encode(batch.tokens).mean
        before = torch.cat([0 * mean[:, :1], mean[:, :-1]], dim=1)
        return DiagonalGaussian(mean + 0.1 * before, torch.full_like(mean, 0.1))


class NormalisesTheRow(Right):
    def encode_rows(self, batch):
        mean = self.encode(batch.tokens).mean
        mean = mean - 0.1 * mean.mean(dim=1, keepdim=True)
        return DiagonalGaussian(mean, torch.full_like(mean, 0.1))


class LossOfTheRow(Right):
    def loss_rows(self, batch, generator=None):
        loss = self.loss(batch.tokens, generator)
        total = loss.total + 0.1 * loss.total.mean(dim=1, keepdim=True)
        return AutoencoderLoss(total, loss.reconstruction, loss.kl)


class Unchecked(Right):
    def _check_chunks(self, tokens):
        pass

    def _check_latents(self, latents):
        pass


class Cutting(Right):
    def mean(self, tokens):
        return super().mean(tokens[..., : self.chunk_size])

    def nll(self, latents, tokens):
        return super().nll(latents, tokens[..., : self.chunk_size])


class NamesNothing(Right):
    def _check_latents(self, latents):
        if latents.shape[-1] != self.latent_size:
            raise ValueError("wrong shape")


class UnusedParameter(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.spare = nn.Parameter(torch.ones(1))


class DetachedEncoder(Right):
    def drawn(self, posterior, generator):
        return super().drawn(posterior, generator).detach()

    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        return AutoencoderLoss(loss.reconstruction, loss.reconstruction, loss.kl)


class RootOfZero(UnusedParameter):
    def decode(self, latents):
        return super().decode(latents) + (0 * self.spare).sqrt()


class DrawsAlways(Right):
    def drawn(self, posterior, generator):
        noise = torch.randn(posterior.mean.shape, generator=generator)
        return posterior.mean + 0.1 * noise.to(posterior.mean)


class MeanOverTokens(Right):
    def nll(self, latents, tokens):
        return super().nll(latents, tokens) / self.chunk_size


class ShiftedLatent(Right):
    def drawn(self, posterior, generator):
        return super().drawn(posterior, generator) + 0.1


class GlobalNoise(Right):
    def drawn(self, posterior, generator):
        return super().drawn(posterior, None)


class Dropping(Right):
    def drawn(self, posterior, generator):
        latents = super().drawn(posterior, generator)
        return nn.functional.dropout(latents, 0.2, self.training)


class Counting(Right):
    calls = 0

    def drawn(self, posterior, generator):
        self.calls += self.training
        return super().drawn(posterior, generator) + 0.01 * self.calls


class ThawingTrain(Right):
    def train(self, mode=True):
        return nn.Module.train(self, mode)


class HalfFrozen(Right):
    def freeze(self):
        self.eval()
        self._frozen = True
        return self


class ForgetfulFreeze(Right):
    def freeze(self):
        self.requires_grad_(False)
        return self.eval()


class DeafTrain(Right):
    def train(self, mode=True):
        self.training = mode and not self._frozen
        return self


class LostBuffer(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("shift", torch.randn(self.latent_size), persistent=False)

    def mean(self, tokens):
        return super().mean(tokens) + self.shift


class PlainTensor(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.shift = torch.randn(self.latent_size)

    def mean(self, tokens):
        return super().mean(tokens) + self.shift


class LayersInAList(Right):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.layers = [nn.Linear(self.latent_size, self.latent_size)]

    def mean(self, tokens):
        mean = super().mean(tokens)
        return self.layers[0].to(mean.dtype)(mean)


class DoublePosterior(Right):
    def encode(self, tokens):
        posterior = super().encode(tokens)
        return DiagonalGaussian(posterior.mean.double(), posterior.std.double())

    def nll(self, latents, tokens):
        return super().nll(latents.to(self.decoder.weight.dtype), tokens)


class HalfLoss(Right):
    def nll(self, latents, tokens):
        return super().nll(latents, tokens).to(latents.dtype)


class LongSum(Right):
    def decode(self, latents):
        return (3000 + super().decode(latents)) - 3000


class Branching(Right):
    def decode(self, latents):
        logits = super().decode(latents)
        return logits / 2 if logits.max() > 1e6 else logits


class Listing(Right):
    def mean(self, tokens):
        mean = super().mean(tokens)
        for place in (mean > 1e6).nonzero().tolist():
            mean[place] = 0
        return mean


class CountingDecoder(Right):
    calls = 0

    def decode(self, latents):
        self.calls += 1
        return super().decode(latents) + self.calls * torch.arange(self.vocab_size)


class TotalIsKL(Right):
    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        return AutoencoderLoss(loss.kl, loss.reconstruction, loss.kl)


class LearnsOtherTokens(Right):
    def nll(self, latents, tokens):
        return super().nll(latents, tokens.roll(1, -1) if self.training else tokens)


class Maximising(Right):
    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        return AutoencoderLoss(-loss.total, loss.reconstruction, loss.kl)


MUTANTS = {
    "can_be_built_and_used": {
        not_an_autoencoder: "seen      a Embedding",
        SwappedSizes: "chunk_size, vocab_size, latent_size = (3, 6, 11)",
        MeanLoss: "the loss's total has shape ()",
        WithoutPlaces: "decode returns what has shape (4, 33)",
    },
    "shapes_fit_any_batch": {
        FlatLoss: "the loss's total has shape (1,)",
        Squeezing: "the posterior's mean has shape",
        SummedPlaces: "decode returns what has shape",
    },
    "empty_batches_are_empty": {
        LessTheLargest: "expected  no error",
        Guessing: "cannot reshape tensor of 0 elements",
        Stacking: "expects a non-empty TensorList",
    },
    "chunks_are_apart": {
        CentredBatch: "posteriors: ",
        RolledBatch: "posteriors: ",
        CentredLoss: "losses: 4 of 4 numbers differ",
    },
    "encoding_is_deterministic": {
        DropsInEncode: "the same as in evaluation mode",
        ShiftsInTraining: "the same as in evaluation mode",
        BagOfTokens: "is the same as of the tokens in reverse order",
    },
    "decoding_is_the_argmax": {
        SecondBest: "decode_tokens: 42 of 42 tokens are others",
        DrawsTokens: "tokens are others",
        DecodesReversed: "tokens are others",
    },
    "places_can_be_decoded_alone": {
        NextPlace: "logits at place 0",
        FirstPlace: "tokens at places 1 to 1",
        ScaledStart: "logits at place 0",
    },
    "nats_are_those_of_decode": {
        MeanNats: "-log p of decode's logits",
        SummedNats: "the cross entropy of each token",
        DetachedNats: "its gradient",
    },
    "unknown_places_do_not_matter": {
        ReadsUnknown: "the same as with other unknown ids",
        InvertedReal: "the posterior",
        HalfUnknown: "the same as with other unknown ids",
        WholeChunksOnly: "the posterior of partial chunks is the same as with other known ids",
    },
    "packed_documents_are_apart": {
        ReadsTheChunkBefore: "posteriors: ",
        NormalisesTheRow: "of documents of lengths",
        LossOfTheRow: "losses: ",
    },
    "wrong_sizes_are_named": {
        Unchecked: "message names",
        Cutting: "chunks have 3 tokens",
        NamesNothing: "ValueError: wrong shape",
    },
    "every_parameter_learns": {
        UnusedParameter: "spare has no gradient in any of 10 steps",
        DetachedEncoder: "encoder.weight has no gradient in any of 10 steps",
        RootOfZero: "the gradient of spare: 1 of 1 numbers are NaN",
    },
    "evaluation_decodes_the_mean": {
        DrawsAlways: "the same as from another seed",
        MeanOverTokens: "-log p of the 3 tokens",
        ShiftedLatent: "-log p of the 3 tokens",
    },
    "randomness_is_the_generators": {
        GlobalNoise: "global generator was moved",
        Dropping: "global generator was moved",
        Counting: "the same as from the same seed before",
    },
    "frozen_it_stays": {
        ThawingTrain: "3 parts are in training mode, 0 parameters trained",
        HalfFrozen: "0 parts are in training mode, 3 parameters trained",
        ForgetfulFreeze: "3 parts are in training mode",
        DeafTrain: "2 parts are in training mode, 0 parameters trained",
    },
    "saved_and_loaded_it_is_the_same": {
        LostBuffer: "the same as of the saved part",
        PlainTensor: "the same as of the saved part",
        LayersInAList: "the same as of the saved part",
    },
    "dtype_is_kept": {
        DoublePosterior: "the posterior is torch.float64",
        HalfLoss: "the loss is torch.bfloat16",
        LongSum: "the loss in torch.bfloat16",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Listing: "data-dependent expression",
        CountingDecoder: "the compiled result",
    },
    "learns_to_reconstruct": {
        TotalIsKL: "nats after 300 steps",
        LearnsOtherTokens: "nats after 300 steps",
        Maximising: "nats after 300 steps",
    },
}


class WithoutNoise(Right):
    """A plain autoencoder: its posterior is all but a point, and training draws nothing."""

    def encode(self, tokens):
        mean = self.mean(tokens)
        return DiagonalGaussian(mean, torch.full_like(mean, 1e-4))

    def drawn(self, posterior, generator):
        return posterior.mean


class StartsAtZero(Right):
    """Its decoder starts at zero: no gradient reaches the encoder in the first step."""

    def __init__(self, chunk_size, vocab_size, latent_size):
        super().__init__(chunk_size, vocab_size, latent_size)
        nn.init.zeros_(self.decoder.weight)

    def loss(self, tokens, generator=None):
        loss = super().loss(tokens, generator)
        return AutoencoderLoss(loss.reconstruction, loss.reconstruction, loss.kl)


ACCEPTED = dict.fromkeys((Right, WithoutNoise, StartsAtZero), ())
