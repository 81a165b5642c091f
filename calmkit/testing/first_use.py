"""The first use of a part: one call of each method, with a check of the result's form.

It is the first contract of every suite, and the only check of `try_part`. It runs without
hypothesis, so no extra is needed. The part is used with the sizes in its own attributes, for a
batch of any shape. Results may be required to have a dtype, which is that of the part's weights.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head
from calmkit.sampling import Draw, SampledChunks, Sampler
from calmkit.scoring import ScoringRule
from calmkit.testing.calls import name_of
from calmkit.testing.contract import Broken
from calmkit.testing.trial import Trial, seed_globally

__all__ = [
    "MISPLACED_SAMPLES",
    "REDUCED_LOSS",
    "REDUCED_SCORE",
    "device_of",
    "use_autoencoder",
    "use_backbone",
    "use_head",
    "use_rule",
    "use_sampler",
]

# Usual causes of a wrong shape.
REDUCED_LOSS = "the loss is reduced over the batch, or summed over another axis than the last"
MISPLACED_SAMPLES = "the samples' axis is missing, or not the first"
REDUCED_SCORE = "samples or dimensions are not summed away, or positions are averaged too"
_KEPT_AXES = "an axis is averaged or flattened that should be kept"


def use_head(
    trial: Trial, head: Head, batch: Sequence[int] = (4,), *, dtype: torch.dtype | None = None
) -> None:
    """Run one training step and draw two samples.

    Raises:
        Broken: If a result has the wrong form.
    """
    device = device_of(head)
    cond = _randn(trial, 1, *batch, head.cond_size).to(device)
    target = _target(trial, *batch, head.latent_size, device=device)
    seed_globally(0)
    loss = trial.call(head.loss, cond, target, trial.generator(0, device))
    form = {"of": f"{type(head).__name__}.loss", "what": "the loss", "axes": "(*batch)"}
    _expect_form(loss, batch, **form, cause=REDUCED_LOSS, dtype=dtype)
    _expect_trains(head, loss.sum(), of=form["of"], what=form["what"])
    seed_globally(0)
    samples = trial.call(head.sample, cond, 2, trial.generator(0, device))
    form = {"of": f"{type(head).__name__}.sample", "what": "what sample returns"}
    form |= {"axes": "(samples, *batch, latent)", "cause": MISPLACED_SAMPLES}
    _expect_form(samples, (2, *batch, head.latent_size), **form, dtype=dtype)
    number = head.evaluations_per_sample
    if not (number is None or (isinstance(number, int) and number >= 0)):
        expected = "a whole number, or None where it depends on the data"
        name = f"{type(head).__name__}.evaluations_per_sample"
        raise Broken(
            seen=f"evaluations_per_sample = {number!r}",
            expected=expected,
            cause="it is a method, not a property, or a float",
            message=f"{name} must be {expected}; got {number!r}",
        )


def use_rule(
    trial: Trial, rule: ScoringRule, batch: Sequence[int] = (4,), *, latent: int = 3
) -> None:
    """Compute one score per position.

    Raises:
        Broken: If the score has the wrong form.
    """
    samples = _randn(trial, 1, max(5, rule.min_samples), *batch, latent)
    target = _target(trial, *batch, latent, device=samples.device)
    score = trial.call(rule.score, samples, target, trial.generator())
    form = {"of": f"{type(rule).__name__}.score", "what": "the score", "axes": "(*batch)"}
    _expect_form(score, batch, **form, cause=REDUCED_SCORE)


def use_backbone(trial: Trial, backbone: Backbone, *, dtype: torch.dtype | None = None) -> None:
    """Compute the states of two rows of five vectors, and run one training step.

    Raises:
        Broken: If the states have the wrong form.
    """
    vectors = _randn(trial, 0, 2, 5, backbone.hidden_size).to(device_of(backbone))
    states = trial.call(backbone, vectors)
    form = {"of": f"{type(backbone).__name__}.forward", "what": "what it returns"}
    axes, cause = "(batch, positions, hidden)", "axes are exchanged"
    _expect_form(states, tuple(vectors.shape), **form, axes=axes, cause=cause, dtype=dtype)
    _expect_trains(backbone, states.sum(), **form)


def use_autoencoder(
    trial: Trial,
    model: ChunkAutoencoder,
    batch: Sequence[int] = (4,),
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Encode and decode chunks, and run one training step.

    Raises:
        Broken: If a result has the wrong form.
    """
    name, device = type(model).__name__, device_of(model)
    shape = (*batch, model.chunk_size)
    tokens = torch.randint(model.vocab_size, shape, generator=trial.generator(1)).to(device)
    check = functools.partial(_expect_form, cause=_KEPT_AXES, dtype=dtype)
    posterior = trial.call(model.encode, tokens)
    sizes, axes = (*batch, model.latent_size), "(*batch, latent)"
    for x in ("mean", "std"):
        what, of = f"the posterior's {x}", f"the {x} of {name}.encode"
        check(getattr(posterior, x), sizes, of=of, what=what, axes=axes)
    logits = trial.call(model.decode, posterior.mean)
    sizes, axes = (*shape, model.vocab_size), "(*batch, chunk, vocab)"
    check(logits, sizes, of=f"{name}.decode", what="decode returns what", axes=axes)
    loss = trial.call(model.loss, tokens, trial.generator(0, device))
    for x in ("total", "reconstruction", "kl"):
        what, of = f"the loss's {x}", f"the {x} of {name}.loss"
        check(getattr(loss, x), batch, of=of, what=what, axes="(*batch)")
    _expect_trains(model, loss.total.sum(), of=f"{name}.loss", what="the loss")


def use_sampler(
    trial: Trial, sampler: Sampler, draw: Draw, generator: torch.Generator | None
) -> SampledChunks:
    """Make one choice from a black box.

    Raises:
        Broken: If the result is not a `SampledChunks`.
    """
    chosen = trial.call(sampler, draw, generator)
    if not isinstance(chosen, SampledChunks):
        raise Broken(
            seen=f"a {type(chosen).__name__}",
            expected="calmkit.sampling.SampledChunks",
            cause="the chosen tokens are returned alone",
            message=f"{name_of(sampler)} must return calmkit.sampling.SampledChunks; got a "
            f"{type(chosen).__name__}",
        )
    return chosen


def device_of(part: object) -> torch.device:
    """The device of a part's weights; the CPU if it has none."""
    weights = part.parameters() if isinstance(part, nn.Module) else iter(())
    weight = next(weights, None)
    return torch.device("cpu") if weight is None else weight.device


def _randn(trial: Trial, number: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=trial.generator(number))


def _target(trial: Trial, *shape: int, device: torch.device) -> DiagonalGaussian:
    mean = 0.5 * _randn(trial, 2, *shape).to(device)
    return DiagonalGaussian(mean, torch.full_like(mean, 0.3))


def _expect_form(
    got: object,
    shape: Sequence[int],
    *,
    of: str,
    what: str,
    axes: str,
    cause: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Require a tensor of a given shape and dtype.

    Args:
        got: The result.
        shape: Its expected shape.
        of: The method that returned it, for the sentence "... must return".
        what: A description of the result.
        axes: The names of its axes.
        cause: The usual cause of a wrong shape.
        dtype: Its required dtype; None: any.
    """
    wanted = f"{axes} = {tuple(shape)}"
    if not isinstance(got, Tensor):
        seen, expected = f"{what} is a {type(got).__name__}", "a tensor"
        message = f"{of} must return a tensor {wanted}; got a {type(got).__name__}"
    elif tuple(got.shape) != tuple(shape):
        seen, expected = f"{what} has shape {tuple(got.shape)}", wanted
        message = f"{of} must return {wanted}; got {tuple(got.shape)}"
        if got.dim() == len(shape) and got.shape[-1] != shape[-1]:
            cause = "the last axis is of another size than the part was built for"
    elif dtype is not None and got.dtype != dtype:
        seen, expected = f"{what} is {got.dtype}", str(dtype)
        message = f"{of} must return {dtype}, as its weights are; got {got.dtype}"
        cause = "a tensor is made without dtype=, or cast to a fixed one"
    else:
        return
    raise Broken(seen=seen, expected=expected, cause=cause, message=message)


def _expect_trains(part: nn.Module, result: Tensor, *, of: str, what: str) -> None:
    """Require a gradient that reaches the trainable weights of a part, if it has any."""
    if not any(p.requires_grad for p in part.parameters()):
        return
    if not result.requires_grad:
        raise Broken(
            seen=f"{what} has no gradient",
            expected="one that reaches the weights",
            cause="detach(), item(), no_grad() or an integer on the way",
            message=f"{of} must have a gradient that reaches the weights; it has none",
        )
    result.backward()
