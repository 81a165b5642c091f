"""How an autoencoder is trained, evaluated, frozen and saved."""

import copy
import io

import torch
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.testing.autoencoders.trial import CHUNK, AutoencoderTrial
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import Broken, contract, expect
from calmkit.testing.expecting import expect_finite, expect_same

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


@contract()
def every_parameter_learns(trial: AutoencoderTrial) -> None:
    """In a training step of 40 chunks each parameter gets a finite gradient that is not zero."""
    model = trial.build().train()
    trial.call(model.loss, trial.tokens(40), trial.generator()).total.sum().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None or not bool((parameter.grad != 0).any()):
            raise Broken(
                seen=f"the gradient of {name} is {'zero' if parameter.grad is not None else None}",
                expected="one that is not zero",
                cause="it is not used, used behind detach(), or multiplied by zero",
            )
        cause = "a root, a logarithm or a division at zero"
        expect_finite(parameter.grad, what=f"the gradient of {name}", cause=cause)


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
    """In training one seed gives one loss, and torch's global generator is left alone."""
    model, tokens = trial.build().train(), trial.tokens(6)
    torch.rand(3)  # so that a part that seeds the global generator as we do is seen
    before = torch.get_rng_state()
    first, again = (
        trial.call(model.loss, tokens, trial.generator(1)).total.detach() for _ in range(2)
    )
    cause = "a draw such as torch.randn without generator=, or nn.Dropout"
    expect(
        torch.equal(torch.get_rng_state(), before),
        seen="the state of torch's global generator was moved",
        expected="numbers from the generator that is passed in only",
        cause=cause,
    )
    expect_same(again, first, what="the loss", than="from the same seed before", cause=cause)


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
    model, other = trial.build().eval(), trial.build(number=1).eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    trial.call(other.load_state_dict, torch.load(file, weights_only=True))
    tokens, cause = trial.tokens(4), "a tensor is neither a parameter nor a persistent buffer"
    than = "of the saved one"
    got, want = (trial.call(m.encode, tokens).mean for m in (other, model))
    expect_same(got, want, what="the posterior", than=than, cause=cause)
    got, want = (trial.call(m.loss, tokens).total for m in (other, model))
    expect_same(got, want, what="the loss", than=than, cause=cause)


@contract()
@torch.no_grad()
def dtype_is_kept(trial: AutoencoderTrial) -> None:
    """Posteriors keep the model's dtype, losses float32 at least, close to those of float64."""
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
        for what, got, right in (
            ("the posterior", posterior.mean.dtype, dtype),
            ("the loss", loss.dtype, least),
        ):
            expect(got == right, seen=f"{what} is {got}", expected=right, cause=cause)
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
    """300 steps on eight chunks: their reconstruction loss falls by 40 per cent at least."""
    model, tokens = trial.build(), trial.tokens(8)
    before = _reconstruction(model, tokens)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, generator = torch.optim.Adam(parameters, lr=1e-2), trial.generator()
    model.train()
    for _ in range(300):
        optimizer.zero_grad()
        trial.call(model.loss, tokens, generator).total.mean().backward()
        optimizer.step()
    after = _reconstruction(model, tokens)
    expect(
        after < 0.6 * before,
        seen=f"{after:.3g} nats after 300 steps, {before:.3g} before",
        expected=f"less than {0.6 * before:.3g}",
        cause="the total leaves out the reconstruction, or regularisers outweigh it",
    )


def _reconstruction(model: ChunkAutoencoder, tokens: Tensor) -> float:
    with torch.no_grad():
        return float(model.eval().loss(tokens).reconstruction.mean())
