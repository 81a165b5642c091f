"""Chunks to latents and back."""

import torch
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.testing.autoencoders.trial import CHUNK, LATENT, VOCAB, AutoencoderTrial
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_different,
    expect_finite,
    expect_refused,
    expect_same,
    expect_shape,
)
from calmkit.testing.first_use import use_autoencoder
from calmkit.testing.tensors import EMPTY_BATCHES, batches

__all__ = [
    "can_be_built_and_used",
    "chunks_are_apart",
    "decoding_is_the_argmax",
    "empty_batches_are_empty",
    "encoding_is_deterministic",
    "nats_are_those_of_decode",
    "packed_documents_are_apart",
    "places_can_be_decoded_alone",
    "shapes_fit_any_batch",
    "unknown_places_do_not_matter",
    "wrong_sizes_are_named",
]


@contract()
def can_be_built_and_used(trial: AutoencoderTrial) -> None:
    """An autoencoder is built from its three sizes, encodes, decodes, and trains for a step."""
    model = trial.build()
    sizes = (model.chunk_size, model.vocab_size, model.latent_size)
    expect(
        sizes == (CHUNK, VOCAB, LATENT),
        seen=f"chunk_size, vocab_size, latent_size = {sizes}",
        expected=(CHUNK, VOCAB, LATENT),
        cause="super().__init__ is not given the three sizes, in this order",
    )
    use_autoencoder(trial, model)


def _expect_shapes(
    trial: AutoencoderTrial, model: ChunkAutoencoder, batch: tuple[int, ...]
) -> None:
    tokens = trial.tokens(*batch)
    posterior = trial.call(model.encode, tokens)
    cause = "an axis is averaged or flattened that should be kept"
    for name in ("mean", "std"):
        got = getattr(posterior, name)
        expect_shape(got, (*batch, LATENT), what=f"the posterior's {name}", cause=cause)
        why = "the exponential of a large number, or a division by zero"
        expect_finite(got, what=f"the posterior's {name}", cause=why)
    logits = trial.call(model.decode, posterior.mean)
    expect_shape(logits, (*batch, CHUNK, VOCAB), what="decode returns what", cause=cause)
    loss = trial.call(model.loss, tokens, trial.generator())
    for name in ("total", "reconstruction", "kl"):
        expect_shape(getattr(loss, name), batch, what=f"the loss's {name}", cause=cause)


@contract(searches=True)
def shapes_fit_any_batch(trial: AutoencoderTrial) -> None:
    """Posterior, logits and losses have the right shapes for any batch."""
    model = trial.build()
    trial.search(batches, lambda batch: _expect_shapes(trial, model, batch))


@contract()
def empty_batches_are_empty(trial: AutoencoderTrial) -> None:
    """Without chunks, posteriors, logits and losses are empty but have the right axes."""
    model = trial.build()
    for batch in EMPTY_BATCHES:
        _expect_shapes(trial, model, batch)


@contract()
@torch.no_grad()
def chunks_are_apart(trial: AutoencoderTrial) -> None:
    """A chunk has the same posterior and loss alone as among others."""
    model, tokens = trial.build().eval(), trial.tokens(4)
    cause = "an operation along the batch axis"
    whole = trial.call(model.encode, tokens).mean
    alone = torch.stack([trial.call(model.encode, chunk).mean for chunk in tokens])
    expect_same(whole, alone, what="posteriors", than="of chunks alone", cause=cause)
    whole = trial.call(model.loss, tokens).total
    alone = torch.stack([trial.call(model.loss, chunk).total for chunk in tokens])
    expect_same(whole, alone, what="losses", than="of chunks alone", cause=cause)


@contract()
@torch.no_grad()
def encoding_is_deterministic(trial: AutoencoderTrial) -> None:
    """`encode` is the same in training and evaluation mode, and depends on the tokens' places."""
    model, tokens = trial.build(), trial.tokens(20)
    training = trial.call(model.train().encode, tokens).mean
    evaluation = trial.call(model.eval().encode, tokens).mean
    cause = "dropout or masking inside `encode`; it belongs into `loss`"
    than = "in evaluation mode"
    expect_same(training, evaluation, what="the posterior", than=than, cause=cause)
    turned = trial.call(model.encode, tokens.flip(-1)).mean
    cause = "tokens are summed or averaged without their places"
    than = "of the tokens in reverse order"
    expect_different(turned, evaluation, what="the posterior", than=than, cause=cause)


@contract()
def decoding_is_the_argmax(trial: AutoencoderTrial) -> None:
    """`decode_tokens` returns the argmax of the logits of `decode`."""
    model, latents = trial.build().eval(), trial.latents(7, 2)
    with torch.no_grad():
        want = trial.call(model.decode, latents).argmax(dim=-1)
    got = trial.call(model.decode_tokens, latents)
    _expect_same_tokens(got, want, "decode_tokens", "decode_tokens is overridden, or decode draws")


def _expect_same_tokens(got: Tensor, want: Tensor, what: str, cause: str) -> None:
    expect_shape(got, want.shape, what=what, cause=cause)
    wrong = int((got != want).sum())
    seen = f"{what}: {wrong} of {got.numel()} tokens are others"
    expect(wrong == 0, seen=seen, expected="the argmax of decode's logits", cause=cause)


@contract()
def nats_are_those_of_decode(trial: AutoencoderTrial) -> None:
    """`token_nats` is -log p of each token by `decode`, with the same gradient for the latent."""
    model, tokens = trial.build().eval(), trial.tokens(7, 2)
    latents = trial.latents(7, 2).requires_grad_()
    got = trial.call(model.token_nats, latents, tokens)
    logs = trial.call(model.decode, latents).log_softmax(dim=-1)
    want = -logs.gather(-1, tokens[..., None])[..., 0]
    cause = "`token_nats` is overridden, and decodes otherwise, or takes a mean"
    what, than = "the cross entropy of each token", "-log p of decode's logits"
    expect_shape(got, want.shape, what=what, cause=cause)
    expect_same(got, want, what=what, than=than, cause=cause)
    weights = torch.rand(got.shape, generator=trial.generator(3))
    slopes = [torch.autograd.grad((x * weights).sum(), latents)[0] for x in (got, want)]
    cause = "the latent is detached or rounded on the way"
    expect_same(*slopes, what="its gradient", than=f"of {than}", cause=cause)


@contract()
@torch.no_grad()
def places_can_be_decoded_alone(trial: AutoencoderTrial) -> None:
    """`start_decoding`, `logits_at` and `tokens_at` agree with `decode` at every place."""
    model, latents = trial.build().eval(), trial.latents(7, 2)
    want, started = trial.call(model.decode, latents), trial.call(model.start_decoding, latents)
    cause = "the decoding by places is overridden, and cuts another part of the features"
    for place in range(CHUNK):
        got = trial.call(model.logits_at, started, place)
        than = "decode's"
        expect_same(got, want[..., place, :], what=f"logits at place {place}", than=than,
                    cause=cause)  # fmt: skip
        for stop in range(place + 1, CHUNK + 1):
            got = trial.call(model.tokens_at, started, range(place, stop))
            tokens = want[..., place:stop, :].argmax(dim=-1)
            _expect_same_tokens(got, tokens, f"tokens at places {place} to {stop - 1}", cause)


@contract()
@torch.no_grad()
def unknown_places_do_not_matter(trial: AutoencoderTrial) -> None:
    """`encode_partial` reads only known places; if all are known, it equals `encode`."""
    model, tokens = trial.build().eval(), trial.tokens(20)
    real = torch.rand(20, CHUNK, generator=trial.generator(3)) < 0.5
    other = torch.where(real, tokens, trial.tokens(20, number=4))
    first, second = (trial.call(model.encode_partial, ids, real).mean for ids in (tokens, other))
    cause = "unknown ids are not replaced before they are embedded"
    what = "the posterior"
    expect_same(second, first, what=what, than="with other unknown ids", cause=cause)
    other = torch.where(real, (tokens + 1) % VOCAB, tokens)
    partial = real.any(dim=-1) & ~real.all(dim=-1)
    changed = trial.call(model.encode_partial, other, real).mean
    cause = "a chunk that is not full is not read at all"
    what, than = "the posterior of partial chunks", "with other known ids"
    expect_different(changed[partial], first[partial], what=what, than=than, cause=cause)
    what = "the posterior"
    got = trial.call(model.encode_partial, tokens, torch.ones_like(real)).mean
    want = trial.call(model.encode, tokens).mean
    cause = "`real` is inverted, or a known place is masked"
    expect_same(got, want, what=f"{what} of whole chunks", than="of encode", cause=cause)


@contract(searches=True)
def packed_documents_are_apart(trial: AutoencoderTrial) -> None:
    """In a row of packed documents, a chunk is encoded as in a row with its document alone."""
    model = trial.build().eval()

    def check(lengths: list[int]) -> None:
        batch = trial.rows([lengths])
        with torch.no_grad():
            whole = trial.call(model.encode_rows, batch).mean[0]
            losses = trial.call(model.loss_rows, batch).total[0]
            start = 0
            for length in lengths:
                part = slice(start, start + length)
                alone = type(batch)(batch.tokens[:, part], batch.real[:, part], ((length,),))
                than = f"of the document alone, of documents of lengths {lengths}"
                cause = "neighbours are read across the borders of documents"
                got, want = whole[part], model.encode_rows(alone).mean[0]
                expect_same(got, want, what="posteriors", than=than, cause=cause)
                want = model.loss_rows(alone).total[0]
                expect_same(losses[part], want, what="losses", than=than, cause=cause)
                start += length

    trial.search(lambda st: st.lists(st.integers(1, 3), min_size=1, max_size=4), check)


@contract()
def wrong_sizes_are_named(trial: AutoencoderTrial) -> None:
    """Chunks and latents of the wrong size are refused by name."""
    model = trial.build()
    wrong = torch.zeros(2, CHUNK + 1, dtype=torch.long)
    for call in (model.encode, model.loss):
        rule = f"chunks have {CHUNK} tokens"
        expect_refused(trial, call, wrong, naming="tokens|chunk", rule=rule)
    for call in (model.decode, model.decode_tokens):
        rule = f"latents have {LATENT} dimensions"
        expect_refused(trial, call, torch.zeros(2, LATENT - 1), naming="latent", rule=rule)
