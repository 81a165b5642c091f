"""A rehearsal before the training: parts that are not calmkit's are used once, within a second.

A sample without its samples axis, a loss that is one number, a cache that is missing would else be
found by what comes after the training, and end it in a traceback. Around parts from elsewhere
stands a model whose other parts are calmkit's and as small as can be; calmkit's own parts are
tried by its tests.
"""

import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import MinGRUBackbone
from calmkit.heads import GaussianHead
from calmkit.models import LanguageModel
from calmkit.testing import UnfitPart, try_model, try_part

from .building import assemble, build_autoencoder
from .errors import ConfigError
from .experiment import TrainExperiment

__all__ = ["rehearse"]

_OURS = "calmkit"
_SMALL = {
    "autoencoder": functools.partial(MLPAutoencoder, width=8),
    "backbone": functools.partial(MinGRUBackbone, depth=1),
    "head": functools.partial(GaussianHead, width=8, depth=1),
}


def rehearse(experiment: TrainExperiment, model: LanguageModel) -> None:
    """Try every part that is not calmkit's, alone and in a model; where all are, do nothing.

    Args:
        experiment: Whose parts.
        model: Made of them, by `check_parts`.

    Raises:
        ConfigError: If one cannot be trained or sampled; names the key.
    """
    parts = {key: getattr(model, key, None) for key in _SMALL} | {"sampler": experiment.sampler}
    foreign = [key for key, part in parts.items() if next(_foreign_in(part), None) is not None]
    if not foreign:
        return
    small: dict[str, Any] = {key: part for key, part in _SMALL.items() if key not in foreign}
    scene = replace(experiment, **small)
    device = _device(experiment.accelerator)
    with _aside(device, experiment):
        autoencoder = None
        if experiment.model == "calm":
            # Alone it is tried before the model freezes it.
            autoencoder = build_autoencoder(scene).to(device)
            _try_parts("autoencoder", autoencoder, experiment.latent_size)
        built = assemble(scene, scene.head, autoencoder=autoencoder).to(device)
        for key in ("backbone", "head"):
            _try_parts(key, getattr(built, key, None), experiment.latent_size)
        try:
            try_model(built, experiment.sampler)
        except UnfitPart as error:
            raise ConfigError(f"{', '.join(foreign)}: {error}") from error


def _try_parts(key: str, part: nn.Module | None, latent_size: int) -> None:
    """What is foreign in a part, the innermost first, and then the part itself."""
    inner = list(_foreign_in(part))[::-1]
    tried = {id(one): one for one in ([*inner, part] if inner else [])}
    try:
        for one in tried.values():
            try_part(one, latent_size=latent_size)
    except UnfitPart as error:
        raise ConfigError(f"{key}: {error}") from error


def _foreign_in(part: object) -> Iterator[object]:
    """The objects in a part, itself first, that are of a kind of calmkit's but not its own."""
    seen, left = set(), [part]
    while left:
        one = left.pop()
        if id(one) in seen or one is None:
            continue
        seen.add(id(one))
        kinds = [kind.__module__.partition(".")[0] for kind in type(one).__mro__]
        # A sampler is a protocol, and need not inherit from anything.
        if kinds[0] != _OURS and (_OURS in kinds or one is part):
            yield one
        if isinstance(one, nn.Module):
            left += one.children()
        if _OURS in kinds:
            left += vars(one).values() if hasattr(one, "__dict__") else ()
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one


def _device(accelerator: str) -> torch.device:
    """Where the training will be: some parts run nowhere else."""
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def _aside(device: torch.device, experiment: TrainExperiment) -> Iterator[None]:
    """A block with random states of its own, in the precision of the training.

    What is worth a warning will be warned of there.
    """
    devices = [device] if device.type == "cuda" else []
    mixed = torch.autocast(device.type, torch.bfloat16, experiment.precision == "bf16-mixed")
    with torch.random.fork_rng(devices=devices), mixed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(experiment.seed)
        yield
