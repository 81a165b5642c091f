"""Training, evaluation, freezing and saving of an autoencoder."""

import copy

import torch
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.testing.autoencoders.trial import CHUNK, AutoencoderTrial
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_dtype, expect_same, expect_untouched_randomness
from calmkit.testing.modules import (
    adam,
    expect_all_learn,
    expect_the_same_loaded,
    gradients_of_training,
)
from calmkit.typing import unchecked

__all__ = [
    "compiles",
    "dtype_is_kept",
    "evaluation_decodes_the_mean",
    "every_parameter_learns",
    "frozen_it_stays",
    "learns_to_reconstruct",
    "randomness_is_the_generators",
    "saved_and_loaded_it_is_the_same",
]

_STEPS_BETWEEN = 20  # between two looks at what has been learned


@contract()
def every_parameter_learns(trial: AutoencoderTrial) -> None:
    """Each parameter has finite gradients, at least one of them nonzero over ten steps."""
    model = trial.build().train()

    def loss(step: int) -> Tensor:
        return trial.call(model.loss, trial.tokens(40, number=step), trial.generator(step)).total

    expect_all_learn(model, gradients_of_training(model, loss))


@contract()
def evaluation_decodes_the_mean(trial: AutoencoderTrial) -> None:
    """In evaluation mode the reconstruction loss is the mean's cross-entropy, without noise."""
    model, tokens = trial.build().eval(), trial.tokens(6)
    first, other = (
        trial.call(model.loss, tokens, trial.generator(number)).reconstruction.detach()
        for number in (1, 2)
    )
    cause = "latents are drawn, masked or dropped in evaluation mode too"
    what = "the reconstruction loss"
    expect_same(other, first, what=what, than="from another seed", cause=cause)
    with torch.no_grad():
        logs = model.decode(model.encode(tokens).mean).log_softmax(dim=-1)
    want = -logs.gather(-1, tokens[..., None])[..., 0].sum(dim=-1)
    than = f"-log p of the {CHUNK} tokens, from decode of the posterior's mean"
    cause = "a mean over the chunk's tokens instead of the sum, or another latent than the mean"
    expect_same(first, want, what=what, than=than, cause=cause)


@contract()
def randomness_is_the_generators(trial: AutoencoderTrial) -> None:
    """In training the seed determines the loss; torch's global generator is not used."""
    model, tokens = trial.build().train(), trial.tokens(6)
    cause = "a draw such as torch.randn without generator=, or nn.Dropout"

    def run() -> Tensor:
        return trial.call(model.loss, tokens, trial.generator(1)).total.detach()

    first = expect_untouched_randomness(run, cause=cause)
    expect_same(run(), first, what="the loss", than="from the same seed before", cause=cause)


@contract()
def frozen_it_stays(trial: AutoencoderTrial) -> None:
    """After `freeze` no parameter is trained, and `train` leaves every part in evaluation mode."""
    model = trial.build()
    trial.call(model.freeze)
    for frozen in (model, copy.deepcopy(model)):
        torch.nn.ModuleDict({"autoencoder": frozen}).train()
        training = [name for name, part in frozen.named_modules() if part.training]
        trained = [name for name, p in frozen.named_parameters() if p.requires_grad]
        expect(
            not training and not trained,
            seen=f"{len(training)} parts are in training mode, {len(trained)} parameters trained",
            expected="none",
            cause="`train` or `freeze` is overridden without calling the base class's",
        )
    fresh = trial.build()
    for mode in (True, False, True):
        fresh.train(mode)
        wrong = sum(part.training != mode for part in fresh.modules())
        expect(
            wrong == 0,
            seen=f"after train({mode}) {wrong} parts are in the other mode",
            expected="none, unless it is frozen",
            cause="`train` is overridden and does not reach every part",
        )


@contract()
@torch.no_grad()
def saved_and_loaded_it_is_the_same(trial: AutoencoderTrial) -> None:
    """A new autoencoder that loads a saved state encodes and scores the same."""
    tokens = trial.tokens(4)
    results = {
        "the posterior": lambda part: trial.call(part.encode, tokens).mean,
        "the loss": lambda part: trial.call(part.loss, tokens).total,
    }
    expect_the_same_loaded(trial, trial.build().eval(), trial.build(number=1).eval(), results)


@contract()
@torch.no_grad()
def dtype_is_kept(trial: AutoencoderTrial) -> None:
    """Posteriors have the model's dtype; losses have at least float32 and are close to float64."""
    tokens = trial.tokens(4)
    want = trial.call(trial.build().eval().loss, tokens).total
    for dtype, tolerance in (
        (torch.float64, 1e-9),
        (torch.float32, 1e-3),
        (torch.bfloat16, 0.1),
    ):
        model = trial.build().eval().to(dtype)
        posterior, loss = trial.call(model.encode, tokens), trial.call(model.loss, tokens).total
        cause = "a tensor is made without dtype=, or a loss is summed in the low precision"
        least = torch.promote_types(dtype, torch.float32)
        expect_dtype(posterior.mean, dtype, what="the posterior", cause=cause)
        expect_dtype(loss, least, what="the loss", cause=cause)
        expect_same(loss.double(), want, what=f"the loss in {dtype}", than="in float64",
                    cause=cause, rtol=tolerance, atol=tolerance)  # fmt: skip


@contract()
def compiles(trial: AutoencoderTrial) -> None:
    """Encoding and decoding are one graph for torch.compile with fullgraph=True."""
    model, tokens = trial.build().eval(), trial.tokens(4)
    name = type(model).__name__
    with torch.no_grad():
        expect_one_graph(
            trial,
            lambda: model.decode(model.encode(tokens).mean),
            name=f"{name}.decode of {name}.encode",
        )


@contract()
def learns_to_reconstruct(trial: AutoencoderTrial) -> None:
    """Within 300 steps on eight chunks, the reconstruction loss falls by 40 per cent or more."""
    model, tokens = trial.build(), trial.tokens(8)
    before = _reconstruction(model, tokens)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, generator = adam([{"params": parameters, "lr": 1e-2}]), trial.generator()
    after = before
    for block in range(300 // _STEPS_BETWEEN):
        model.train()
        for _ in range(_STEPS_BETWEEN):
            optimizer.zero_grad()
            with unchecked(block > 0):  # shapes are those of the first steps
                loss = trial.call(model.loss, tokens, generator).total.mean()
            loss.backward()
            optimizer.step()
        after = _reconstruction(model, tokens)
        if after < 0.6 * before:  # a wide autoencoder takes long for each step
            break
    expect(
        after < 0.6 * before,
        seen=f"{after:.3g} nats after 300 steps, {before:.3g} before",
        expected=f"less than {0.6 * before:.3g}",
        cause="the total leaves out the reconstruction, or regularisers outweigh it",
    )


def _reconstruction(model: ChunkAutoencoder, tokens: Tensor) -> float:
    with torch.no_grad():
        return float(model.eval().loss(tokens).reconstruction.mean())
