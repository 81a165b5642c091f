"""A dry run of under a second that checks whether a part or model can be trained and sampled.

    try_part(MyHead(16, 8))    # ... must return (samples, *batch, latent) = (2, 3, 8); got (3, 8)

It checks only the first contract, with the sizes, device and autocast of the coming training. No
extra is needed, and random states are restored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import Head
from calmkit.models import LanguageModel
from calmkit.sampling import Draw, SampledChunks, Sampler
from calmkit.scoring import ScoringRule
from calmkit.testing.blame import description_of
from calmkit.testing.first_use import (
    device_of,
    use_autoencoder,
    use_backbone,
    use_head,
    use_rule,
    use_sampler,
)
from calmkit.testing.profiles import PROFILES
from calmkit.testing.trial import Trial, neutral

__all__ = ["UnfitPart", "try_model", "try_part"]

_POSITIONS = 3


class UnfitPart(ValueError):
    """A part cannot be trained or sampled; states the expected and the observed behaviour."""


def try_part(part: object, *, latent_size: int = 3) -> None:
    """Use a part once, as in training and sampling.

    Args:
        part: A head, a scoring rule, a backbone or an autoencoder; other parts pass.
        latent_size: Dimensions of the samples for a rule.

    Raises:
        UnfitPart: If the part raises an error or returns a result of the wrong form.
    """
    with _trial() as trial:
        if isinstance(part, Head):
            use_head(trial, part, (_POSITIONS,), dtype=_dtype_of(part))
        elif isinstance(part, ScoringRule):
            use_rule(trial, part, (_POSITIONS,), latent=latent_size)
        elif isinstance(part, Backbone):
            use_backbone(trial, part, dtype=_dtype_of(part))
        elif isinstance(part, ChunkAutoencoder):
            use_autoencoder(trial, part, (_POSITIONS,), dtype=_dtype_of(part))
            rows = _rows(trial, part.chunk_size, part.vocab_size, device_of(part))
            trial.call(part.loss_rows, rows, trial.generator(0, rows.tokens.device))


def try_model(model: LanguageModel, sampler: Sampler | None = None) -> None:
    """Run one training step of a model on two short rows, and generate two chunks.

    Args:
        model: The model; it keeps the gradients.
        sampler: Chooses each chunk; plain sampling if None.

    Raises:
        UnfitPart: If a step fails.
    """
    device = device_of(model)
    with _trial() as trial:
        rows = _rows(trial, model.chunk_size, model.vocab_size, device)
        trial.last_call = "a training step"
        model.loss(rows, trial.generator(0, device)).total.backward()
        trial.last_call = "generating text"
        model.generate(
            [[0]],
            max_new_tokens=2 * model.chunk_size,
            sampler=None if sampler is None else _checked_sampler(trial, sampler),
            generator=trial.generator(0, device),
        )


@contextmanager
def _trial() -> Iterator[Trial]:
    """A context with a trial that converts errors to `UnfitPart` and restores random states."""
    trial = Trial(lambda: None, PROFILES["quick"], 0)
    try:
        with neutral(0, torch.get_default_dtype()):
            yield trial
    except Exception as error:  # foreign code may raise anything
        raise UnfitPart(description_of(error, trial.last_call)) from error


def _dtype_of(part: nn.Module) -> torch.dtype | None:
    """The expected dtype of its results, that of its weights; None under autocast."""
    weight: Tensor | None = next(part.parameters(), None)
    if torch.is_autocast_enabled(device_of(part).type):
        return None
    return torch.get_default_dtype() if weight is None else weight.dtype


def _rows(trial: Trial, chunk_size: int, vocab_size: int, device: torch.device) -> ChunkBatch:
    shape = (2, _POSITIONS, chunk_size)
    tokens = torch.randint(vocab_size, shape, generator=trial.generator()).to(device)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((_POSITIONS,),) * 2)


def _checked_sampler(trial: Trial, sampler: Sampler) -> Callable[..., SampledChunks]:
    def choose(draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        return use_sampler(trial, sampler, draw, generator)

    return choose
