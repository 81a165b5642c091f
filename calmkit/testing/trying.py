"""A part or a model tried within a second: can it be trained and sampled at all?

    try_part(MyHead(16, 8))    # ... must return (samples, *batch, latent) = (2, 3, 8); got (3, 8)

Of the contracts only the first is looked at, with the sizes, on the device and in the autocast
that a training will have. No extra is needed, and random states are as before when it ends.
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
from calmkit.testing.blame import told_of
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
    """A part that cannot be trained or sampled; says what it must do, and what it did."""


def try_part(part: object, *, latent_size: int = 3) -> None:
    """Use a part once, as training and sampling will.

    Args:
        part: A head, a scoring rule, a backbone or an autoencoder; others pass.
        latent_size: Dimensions of what a rule scores.

    Raises:
        UnfitPart: If it raises, or gives back what is of another form than its kind's.
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
    """Train a model on two short rows for a step, and write two chunks with it.

    Args:
        model: The model; gradients are left in it.
        sampler: How a chunk is chosen; plain sampling if None.

    Raises:
        UnfitPart: If that fails.
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
            sampler=None if sampler is None else _tried(trial, sampler),
            generator=trial.generator(0, device),
        )


@contextmanager
def _trial() -> Iterator[Trial]:
    """A trial for a block, in which what is raised is an `UnfitPart`; random states are kept."""
    trial = Trial(lambda: None, PROFILES["quick"], 0)
    try:
        with neutral(0, torch.get_default_dtype()):
            yield trial
    except Exception as error:  # the code is anyone's
        raise UnfitPart(told_of(error, trial.last_call)) from error


def _dtype_of(part: nn.Module) -> torch.dtype | None:
    """Of its results, which is that of its weights; any where autocast is on."""
    weight: Tensor | None = next(part.parameters(), None)
    if torch.is_autocast_enabled(device_of(part).type):
        return None
    return torch.get_default_dtype() if weight is None else weight.dtype


def _rows(trial: Trial, chunk_size: int, vocab_size: int, device: torch.device) -> ChunkBatch:
    shape = (2, _POSITIONS, chunk_size)
    tokens = torch.randint(vocab_size, shape, generator=trial.generator()).to(device)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((_POSITIONS,),) * 2)


def _tried(trial: Trial, sampler: Sampler) -> Callable[..., SampledChunks]:
    def choose(draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        return use_sampler(trial, sampler, draw, generator)

    return choose
