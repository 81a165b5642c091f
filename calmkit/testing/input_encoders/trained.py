"""Training, saving, casting and compiling of an input encoder."""

import torch
from torch import Tensor, nn

from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_dtype,
    expect_finite,
    expect_same,
    expect_shape,
    expect_untouched_randomness,
)
from calmkit.testing.input_encoders.trial import CHUNK, HIDDEN, VOCAB, EncoderTrial
from calmkit.testing.modules import (
    autocast,
    expect_all_learn,
    expect_small_error,
    expect_the_same_loaded,
    gradients_of_training,
)

__all__ = [
    "autocast_is_close",
    "compiles",
    "dtype_is_kept",
    "evaluation_is_deterministic",
    "every_parameter_learns",
    "noise_is_for_training_only",
    "saved_and_loaded_it_is_the_same",
    "the_autoencoder_is_only_read",
]


@contract()
def every_parameter_learns(trial: EncoderTrial) -> None:
    """Each parameter has finite gradients, at least one of them nonzero over ten inputs."""
    encoder = trial.build().train()

    def loss(step: int) -> Tensor:
        tokens = trial.tokens(40, number=step)
        real = torch.rand(tokens.shape, generator=trial.generator(200 + step)) < 0.7
        weights = torch.randn(40, HIDDEN, generator=trial.generator(100 + step))
        return (trial.vectors(encoder, tokens, real) * weights).sum()

    expect_all_learn(encoder, gradients_of_training(encoder, loss))


@contract()
@torch.no_grad()
def evaluation_is_deterministic(trial: EncoderTrial) -> None:
    """In evaluation mode the chunk determines its vector; the global generator is not used."""
    encoder, tokens = trial.build(), trial.tokens(4)
    cause = "a draw such as dropout in evaluation mode too, or something kept between calls"
    first = expect_untouched_randomness(lambda: trial.vectors(encoder, tokens), cause=cause)
    again = trial.vectors(encoder, tokens)
    expect_same(again, first, what="the vectors", than="of the same chunks before", cause=cause)


@contract()
@torch.no_grad()
def noise_is_for_training_only(trial: EncoderTrial) -> None:
    """`training_vectors` has the axes of `forward`, and equals it in evaluation mode."""
    encoder, tokens = trial.build(), trial.tokens(2, 4)
    real = trial.tokens(2, 4, number=2) > 3
    want = trial.vectors(encoder, tokens, real)
    got = trial.call(encoder.training_vectors, tokens, real, trial.generator(3))
    what, cause = "training_vectors in evaluation mode", "noise is not left out where not training"
    expect_same(got, want, what=what, than="of forward", cause=cause)
    got = trial.call(encoder.train().training_vectors, tokens, real, trial.generator(3))
    cause = "noise is drawn in another shape, and broadcast"
    expect_shape(got, (2, 4, HIDDEN), what="training_vectors in training mode", cause=cause)
    expect_finite(got, what="training_vectors in training mode", cause="a division by zero")


@contract()
@torch.no_grad()
def dtype_is_kept(trial: EncoderTrial) -> None:
    """Vectors have the dtype of the weights, and are close to those of float64."""
    tokens = trial.tokens(4)
    want = trial.vectors(trial.build(), tokens)
    for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        encoder = trial.build()
        trial.whole(encoder).to(dtype)
        got = trial.vectors(encoder, tokens)
        cause = "a tensor is made without dtype=, or a sum runs in the low precision"
        expect_dtype(got, dtype, what="what it returns", cause=cause)
        expect_small_error(got, want, most, what=f"vectors in {dtype}", cause=cause)


@contract()
@torch.no_grad()
def autocast_is_close(trial: EncoderTrial) -> None:
    """Under bfloat16 autocast, vectors are close to the plain ones."""
    encoder, tokens = trial.build(), trial.tokens(4)
    trial.whole(encoder).float()
    want = trial.vectors(encoder, tokens)
    with autocast():
        got = trial.vectors(encoder, tokens)
    cause = "places, ids or a long sum are computed in bfloat16"
    expect_small_error(got, want, 0.05, what="vectors", cause=cause)


@contract()
@torch.no_grad()
def saved_and_loaded_it_is_the_same(trial: EncoderTrial) -> None:
    """A new encoder that loads a saved state, and the autoencoder's, gives the same vectors."""
    tokens = trial.tokens(4)
    saved, other = (trial.whole(trial.build(number)) for number in (0, 1))

    def read(whole: nn.Module) -> Tensor:
        (encoder, *_) = whole.children()
        return trial.call(encoder, tokens, torch.ones_like(tokens, dtype=torch.bool))

    expect_the_same_loaded(trial, saved, other, {"the vectors": read})


@contract()
def compiles(trial: EncoderTrial) -> None:
    """It is one graph for torch.compile with fullgraph=True."""
    encoder, tokens = trial.build(), trial.tokens(2, 4)
    real = trial.tokens(2, 4, number=2) > 3
    with torch.no_grad():
        name = type(encoder).__name__
        expect_one_graph(trial, lambda: encoder(tokens, real), name=name)


def _reads_tokens_only(trial: EncoderTrial) -> str | None:
    return "it reads no autoencoder" if trial.build().autoencoder is None else None


@contract(applies=_reads_tokens_only)
def the_autoencoder_is_only_read(trial: EncoderTrial) -> None:
    """The autoencoder is not a part of the encoder, receives no gradient, and has its sizes."""
    encoder = trial.build()
    read = encoder.autoencoder
    assert read is not None
    sizes = (read.vocab_size, read.chunk_size)
    cause = "it was built from other sizes than the encoder"
    seen = f"an autoencoder with vocab_size, chunk_size = {sizes}"
    expect(sizes == (VOCAB, CHUNK), seen=seen, expected=(VOCAB, CHUNK), cause=cause)
    own = {id(parameter) for parameter in encoder.parameters()}
    shared = sum(id(parameter) in own for parameter in read.parameters())
    cause = "the autoencoder is an attribute, and so a module of the encoder: keep it in a tuple"
    seen = f"{shared} parameters of the autoencoder are the encoder's too"
    expect(shared == 0, seen=seen, expected="none: the model has them already", cause=cause)
    trial.vectors(encoder.train(), trial.tokens(20)).square().sum().backward()
    reached = sum(p.grad is not None and bool(p.grad.any()) for p in read.parameters())
    cause = "it is not read under torch.no_grad()"
    seen = f"{reached} parameters of the autoencoder have a gradient"
    expect(reached == 0, seen=seen, expected="none: it is frozen", cause=cause)
