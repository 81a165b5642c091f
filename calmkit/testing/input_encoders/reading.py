"""What is read of a chunk: every known token at its place, and nothing else."""

import itertools

import torch

from calmkit.models import InputEncoder
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_different,
    expect_finite,
    expect_refused,
    expect_same,
    expect_shape,
    expect_unchanged,
    no_shape_checks,
)
from calmkit.testing.input_encoders.trial import CHUNK, HIDDEN, VOCAB, EncoderTrial
from calmkit.testing.tensors import EMPTY_BATCHES, batches, laid_out, layouts_and_batches

__all__ = [
    "any_integers_are_read",
    "arguments_are_left_alone",
    "batches_do_not_broadcast",
    "can_be_built_and_used",
    "chunks_are_apart",
    "empty_batches_are_empty",
    "every_token_is_read_at_its_place",
    "layout_in_memory_does_not_matter",
    "partial_chunks_are_told_apart",
    "shapes_fit_any_batch",
    "unknown_places_do_not_matter",
    "wrong_chunks_are_named",
]

_AXES = "an axis is averaged, flattened or squeezed that should be kept"


@contract()
def can_be_built_and_used(trial: EncoderTrial) -> None:
    """An input encoder is built from its three sizes, and has one vector for each chunk."""
    encoder = trial.build()
    sizes = (encoder.vocab_size, encoder.chunk_size, encoder.hidden_size)
    expect(
        sizes == (VOCAB, CHUNK, HIDDEN),
        seen=f"vocab_size, chunk_size, hidden_size = {sizes}",
        expected=(VOCAB, CHUNK, HIDDEN),
        cause="the attributes are not set, or exchanged",
    )
    got = trial.vectors(encoder, trial.tokens(2, 4))
    expect_shape(got, (2, 4, HIDDEN), what="what it returns", cause=_AXES)
    got.sum().backward()


def _expect_vectors(trial: EncoderTrial, encoder: InputEncoder, batch: tuple[int, ...]) -> None:
    tokens = trial.tokens(*batch)
    real = torch.rand(tokens.shape, generator=trial.generator(3)) < 0.7
    for known in (real, torch.zeros_like(real)):
        got = trial.vectors(encoder, tokens, known)
        expect_shape(got, (*batch, HIDDEN), what="what it returns", cause=_AXES)
        cause = "a division by the number of known places, which may be none"
        expect_finite(got, what="what it returns", cause=cause)


@contract(searches=True)
def shapes_fit_any_batch(trial: EncoderTrial) -> None:
    """For any batch there is one finite vector for each chunk, also where no place is known."""
    encoder = trial.build()
    trial.search(batches, lambda batch: _expect_vectors(trial, encoder, batch))


@contract()
def empty_batches_are_empty(trial: EncoderTrial) -> None:
    """Without a chunk there are no vectors, but their axes."""
    encoder = trial.build()
    for batch in EMPTY_BATCHES:
        _expect_vectors(trial, encoder, batch)


@contract(searches=True)
@torch.no_grad()
def layout_in_memory_does_not_matter(trial: EncoderTrial) -> None:
    """Expanded and non-contiguous tokens give the same as their contiguous copies."""
    encoder = trial.build()

    def check(example: tuple[str, tuple[int, ...]]) -> None:
        layout, batch = example
        tokens, real = trial.tokens(2, *batch), trial.tokens(2, *batch, number=2) > 3
        odd = [laid_out(x, layout) for x in (tokens, real)]
        got = trial.vectors(encoder, *odd)
        want = trial.vectors(encoder, *(x.contiguous() for x in odd))
        than = f"for contiguous copies (layout: {layout})"
        cause = "`view` where `reshape` is needed, or a result written through an expanded tensor"
        expect_same(got, want, what="the vectors", than=than, cause=cause)

    trial.search(layouts_and_batches, check)


@contract()
@torch.no_grad()
def chunks_are_apart(trial: EncoderTrial) -> None:
    """Read among others or alone, a chunk has the same vector: text goes on chunk by chunk."""
    encoder, tokens = trial.build(), trial.tokens(2, 4)
    real = torch.rand(tokens.shape, generator=trial.generator(3)) < 0.7
    together = trial.vectors(encoder, tokens, real)
    for i, j in itertools.product(range(2), range(4)):
        alone = trial.vectors(encoder, tokens[i, j], real[i, j])
        than = f"that of chunk {j} of row {i} among the others"
        cause = "an operation along the positions or the batch: attention, a mean, a convolution"
        expect_same(alone, together[i, j], what="the vector alone", than=than, cause=cause)


@contract()
@torch.no_grad()
def every_token_is_read_at_its_place(trial: EncoderTrial) -> None:
    """Another token at any place, and the same tokens in another order, give another vector."""
    encoder, tokens = trial.build(), trial.tokens(20)
    want = trial.vectors(encoder, tokens)
    for place in range(CHUNK):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % VOCAB
        got, than = trial.vectors(encoder, other), f"with another token at place {place}"
        cause = "that place is not read, or is multiplied by zero"
        expect_different(got, want, what="the vector", than=than, cause=cause)
    got = trial.vectors(encoder, tokens.flip(-1))
    cause = "tokens are summed or averaged without their places"
    than = "of the tokens in reverse order"
    expect_different(got, want, what="the vector", than=than, cause=cause)


@contract()
@torch.no_grad()
def unknown_places_do_not_matter(trial: EncoderTrial) -> None:
    """The ids at places where `real` is False change nothing; those where it is True do."""
    encoder, tokens = trial.build(), trial.tokens(30)
    real = torch.rand(tokens.shape, generator=trial.generator(3)) < 0.5
    want = trial.vectors(encoder, tokens, real)
    for what, other in (
        ("other unknown ids", torch.where(real, tokens, trial.tokens(30, number=4))),
        ("zeros for unknown ids", torch.where(real, tokens, 0)),
        ("the largest id for unknown ones", torch.where(real, tokens, VOCAB - 1)),
    ):
        got = trial.vectors(encoder, other, real)
        cause = "`real` is not read, is inverted, or some of what is read passes it by"
        expect_same(got, want, what="the vectors", than=f"with {what}", cause=cause)
    other = torch.where(real, (tokens + 1) % VOCAB, tokens)
    cause = "`real` is inverted, or a chunk that is not full is not read at all"
    than, partial = "with other known ids", real.any(dim=-1) & ~real.all(dim=-1)
    got = trial.vectors(encoder, other, real)
    expect_different(got[partial], want[partial], what="the vectors", than=than, cause=cause)


@contract()
@torch.no_grad()
def partial_chunks_are_told_apart(trial: EncoderTrial) -> None:
    """A known token at one place of a partial chunk is not read as at another place."""
    encoder = trial.build()
    tokens = torch.full((CHUNK, CHUNK), 4)
    real = torch.eye(CHUNK, dtype=torch.bool)
    got = trial.vectors(encoder, tokens, real)
    for one, other in itertools.combinations(range(CHUNK), 2):
        than = f"of that token at place {other}"
        cause = "known tokens are moved together, or summed without their places"
        what = f"the vector of a single known token at place {one}"
        expect_different(got[one], got[other], what=what, than=than, cause=cause)


@contract()
@torch.no_grad()
def any_integers_are_read(trial: EncoderTrial) -> None:
    """Ids of 8, 16 and 32 bits, in which stores keep them, give the same as those of 64."""
    encoder, tokens = trial.build(), trial.tokens(4)
    want = trial.vectors(encoder, tokens)
    for dtype in (torch.int8, torch.int16, torch.int32):
        got = trial.vectors(encoder, tokens.to(dtype))
        than, cause = f"with ids in torch.int64 (these are {dtype})", "ids are not cast by .long()"
        expect_same(got, want, what="the vectors", than=than, cause=cause)


@contract()
def arguments_are_left_alone(trial: EncoderTrial) -> None:
    """Tokens and the mask of what is real are read, never written."""
    encoder, tokens = trial.build(), trial.tokens(4)
    real = trial.tokens(4, number=2) > 3
    before = [tokens.clone(), real.clone()]
    with torch.no_grad():
        trial.vectors(encoder, tokens, real)
    expect_unchanged(before, [tokens, real], names="tokens real")


@contract()
def wrong_chunks_are_named(trial: EncoderTrial) -> None:
    """Chunks of another number of tokens are refused by name."""
    encoder = trial.build()
    for size in (CHUNK - 1, CHUNK + 1, 1):
        tokens = torch.zeros(2, size, dtype=torch.long)
        real, rule = torch.ones_like(tokens, dtype=torch.bool), f"chunks have {CHUNK} tokens"
        expect_refused(trial, encoder, tokens, real, naming="tokens|chunk", rule=rule)


@contract(applies=no_shape_checks)
def batches_do_not_broadcast(trial: EncoderTrial) -> None:
    """Tokens and `real` of different batches are refused, also where they would broadcast."""
    encoder, tokens = trial.build(), trial.tokens(4)
    for batch in ((1,), (), (2, 4)):
        real = torch.ones(*batch, CHUNK, dtype=torch.bool)
        rule = f"tokens have batch (4,), real has {batch}"
        expect_refused(trial, encoder, tokens, real, naming="real|tokens|batch", rule=rule)
