"""A rehearsal before training, within a second, of parts that are not calmkit's own.

Some errors in a part, such as a sample without its samples axis, a scalar loss or a missing cache,
would otherwise appear only after the training, as a traceback. The rehearsal puts the user's parts
into a model whose other parts are calmkit's and as small as possible. calmkit's own parts are
covered by its tests.
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
from calmkit.extras import load_fabric
from calmkit.heads import GaussianHead
from calmkit.models import LanguageModel
from calmkit.schema import ConfigError
from calmkit.testing import UnfitPart, try_model, try_part

from .building import assemble, build_autoencoder
from .experiment import TrainExperiment

__all__ = ["rehearse"]

_CALMKIT = "calmkit"
_SMALL = {
    "autoencoder": functools.partial(MLPAutoencoder, width=8),
    "backbone": functools.partial(MinGRUBackbone, depth=1),
    "head": functools.partial(GaussianHead, width=8, depth=1),
}


def rehearse(experiment: TrainExperiment, model: LanguageModel) -> None:
    """Try every part that is not calmkit's, alone and in a model.

    Args:
        experiment: The experiment with these parts.
        model: Its model, built by `check_parts`.

    Raises:
        ConfigError: If a part cannot be trained or sampled; names the key.
    """
    parts = {key: getattr(model, key, None) for key in _SMALL} | {"sampler": experiment.sampler}
    foreign = [key for key, part in parts.items() if next(_foreign_in(part), None) is not None]
    if not foreign:
        return
    small: dict[str, Any] = {key: part for key, part in _SMALL.items() if key not in foreign}
    rehearsed = replace(experiment, **small)
    fabric = load_fabric("a rehearsal").Fabric(accelerator=experiment.accelerator, devices=1)
    device = fabric.device  # some parts run on no other than that of the training
    with _isolated(device, experiment):
        autoencoder = None
        if experiment.model == "calm":
            # It is tried alone before the model freezes it.
            autoencoder = build_autoencoder(rehearsed).to(device)
            _try_parts("autoencoder", autoencoder, experiment.latent_size)
        built = assemble(rehearsed, rehearsed.head, autoencoder=autoencoder).to(device)
        for key in ("backbone", "head"):
            _try_parts(key, getattr(built, key, None), experiment.latent_size)
        try:
            try_model(built, experiment.sampler)
        except UnfitPart as error:
            raise ConfigError(f"{', '.join(foreign)}: {error}") from error


def _try_parts(key: str, part: nn.Module | None, latent_size: int) -> None:
    """Try the foreign objects in a part, innermost first, and then the part itself."""
    inner = list(_foreign_in(part))[::-1]
    tried = {id(one): one for one in ([*inner, part] if inner else [])}
    try:
        for one in tried.values():
            try_part(one, latent_size=latent_size)
    except UnfitPart as error:
        raise ConfigError(f"{key}: {error}") from error


def _foreign_in(part: object) -> Iterator[object]:
    """Objects in a part, outermost first, of a kind of calmkit's but defined elsewhere."""
    seen, left = set(), [part]
    while left:
        one = left.pop()
        if id(one) in seen or one is None:
            continue
        seen.add(id(one))
        kinds = [kind.__module__.partition(".")[0] for kind in type(one).__mro__]
        # A sampler is a protocol and need not inherit from a class of calmkit.
        if kinds[0] != _CALMKIT and (_CALMKIT in kinds or one is part):
            yield one
        if isinstance(one, nn.Module):
            left += one.children()
        if _CALMKIT in kinds:
            left += vars(one).values() if hasattr(one, "__dict__") else ()
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one


@contextmanager
def _isolated(device: torch.device, experiment: TrainExperiment) -> Iterator[None]:
    """Isolate the random state, use the precision of the training, and silence warnings.

    The training will issue the warnings again.
    """
    devices = [device] if device.type == "cuda" else []
    mixed = torch.autocast(device.type, torch.bfloat16, experiment.precision == "bf16-mixed")
    with torch.random.fork_rng(devices=devices), mixed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(experiment.seed)
        yield
