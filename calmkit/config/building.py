"""From a config to built parts; every constructor's refusal names the config's key."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calmkit.autoencoders import ChunkAutoencoder, StandardizedAutoencoder
from calmkit.heads import Head
from calmkit.models import CALM, ChunkEmbedding

from .errors import ConfigError, Source
from .experiment import Experiment, ModelParts, TrainExperiment
from .parsing import explained, new_parser

__all__ = ["assemble", "build", "check_parts"]


def build(config: Mapping[str, Any] | Path | str) -> CALM:
    """Build an untrained model from a config: sizes, `autoencoder`, `backbone` and `head`.

    The keys of a whole training experiment are allowed too, so that the config saved with a
    model rebuilds it; they are not used.

    Args:
        config: A mapping, or the path of a YAML file.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is refused.
    """
    is_mapping = isinstance(config, Mapping)
    source = Source("config", config) if is_mapping else Source.of_file(Path(config))
    model_keys = {entry.name for entry in dataclasses.fields(ModelParts)} | {"head"}
    run_keys = {entry.name for entry in dataclasses.fields(TrainExperiment)} - model_keys
    parser = new_parser("calmkit.config.build")
    parser.add_class_arguments(TrainExperiment, skip=run_keys)
    chosen = {key: value for key, value in source.values.items() if key not in run_keys}
    with explained(TrainExperiment, [source]):
        parts = parser.instantiate(parser.parse_object(chosen))
    return assemble(parts, parts.head)


def assemble(
    parts: ModelParts,
    head: Callable[[int, int], Head],
    *,
    autoencoder: ChunkAutoencoder | None = None,
    key: str = "head",
) -> CALM:
    """Build a CALM from factories; the head last, so that it does not move earlier draws.

    Args:
        parts: Sizes and factories.
        head: The head's factory.
        autoencoder: One that exists already; built from `parts` if None.
        key: The config key that holds the head, for error messages.

    Raises:
        ConfigError: If a constructor refuses a value; names the part's key.
    """
    return _assemble(parts, head, autoencoder, key, call=lambda make: make())


def check_parts(experiment: Experiment) -> None:
    """Call every constructor once, without memory or random numbers, to see its errors early.

    Raises:
        ConfigError: If a part or an optimiser refuses its arguments; names the key.
    """
    for key, head in experiment.heads_by_key().items():
        with torch.random.fork_rng(devices=[]):
            _assemble(experiment, head, None, key, call=_on_meta_if_possible)
    for key in ("autoencoder_optimizer", "optimizer"):
        with _blame(key):
            getattr(experiment, key)([nn.Parameter(torch.zeros(1, 1))])


def _assemble(
    parts: ModelParts,
    head: Callable[[int, int], Head],
    autoencoder: ChunkAutoencoder | None,
    key: str,
    *,
    call: Callable[[Callable[[], nn.Module]], Any],
) -> CALM:
    """Build each part through `call`, the head last."""

    def new_autoencoder() -> ChunkAutoencoder:
        new = parts.autoencoder(parts.chunk_size, parts.vocab_size, parts.latent_size)
        return StandardizedAutoencoder(new) if parts.standardize else new

    if autoencoder is None:
        with _blame("autoencoder"):
            autoencoder = call(new_autoencoder)
    with _blame("hidden_size"):
        encoder = call(
            lambda: ChunkEmbedding(parts.vocab_size, parts.chunk_size, parts.hidden_size)
        )
    with _blame("backbone"):
        backbone = call(lambda: parts.backbone(parts.hidden_size))
    with _blame(key):
        built = call(lambda: head(parts.hidden_size, parts.latent_size))
        return CALM(autoencoder=autoencoder, input_encoder=encoder, backbone=backbone, head=built)


def _on_meta_if_possible(make: Callable[[], nn.Module]) -> nn.Module:
    """Without memory, unless the constructor looks at the numbers it computes."""
    try:
        with torch.device("meta"):
            return make()
    except RuntimeError:
        return make()


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from None
