"""Build the parts of a config; an error from a constructor names the config's key."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calmkit.autoencoders import ChunkAutoencoder, wrapped
from calmkit.heads import Head
from calmkit.models import CALM, LanguageModel, TokenLM, encoder_of
from calmkit.nn import without_memory
from calmkit.schema import ConfigError, Source, arguments_of, check_layers, refused
from calmkit.training import build_optimizer

from .experiment import ModelParts, TrainExperiment
from .parsing import explained, new_parser

__all__ = ["assemble", "build", "build_autoencoder", "check_device", "check_parts"]


def build(config: Mapping[str, Any] | Path | str) -> LanguageModel:
    """Build an untrained model from a config: sizes, `autoencoder`, `backbone` and `head`.

    The other keys of a training experiment are accepted and ignored, so that the config saved with
    a model rebuilds it.

    The config must be trusted: the modules of the classes that it names are imported. For a model
    from elsewhere use `calmkit.load`, which does not need the config.

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
    every = arguments_of(TrainExperiment).items()
    schema = {key: one for key, one in every if key not in run_keys}
    check_layers(schema, [Source(source.name, chosen)], [])
    with explained():
        parts = parser.instantiate(parser.parse_object(chosen))
    return assemble(parts, parts.head)


def assemble(
    parts: ModelParts,
    head: Callable[[int, int], Head],
    *,
    autoencoder: ChunkAutoencoder | None = None,
) -> LanguageModel:
    """Build a model from factories.

    The head is built last, so that it does not change the initial weights of the other parts.

    Args:
        parts: Sizes and factories.
        head: The head's factory; unused for a TokenLM.
        autoencoder: An existing autoencoder; built from `parts` if None.

    Raises:
        ConfigError: If a constructor refuses a value; names the part's key.
    """
    return _assemble(parts, head, autoencoder, call=lambda make: make())


def check_parts(experiment: TrainExperiment) -> LanguageModel:
    """Call every constructor once, without memory or random numbers, to detect errors early.

    Returns:
        The model without its weights.

    Raises:
        ConfigError: If a part, an optimiser or the logger refuses its arguments, an optimiser
            cannot take a step, or the machine has no such device; names the key.
    """
    check_device(experiment.accelerator, experiment.devices)
    model = _assemble(experiment, experiment.head, None, call=without_memory)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with _blame("optimizer"):
        build_optimizer(experiment.optimizer, trained)
    trained = {"weight": nn.Parameter(torch.zeros(1, 1))}
    if isinstance(model, CALM):
        # The autoencoder is trained before the model, in which it is frozen.
        trained = {n: nn.Parameter(p) for n, p in model.autoencoder.named_parameters()}
    with _blame("autoencoder_optimizer"):
        build_optimizer(experiment.autoencoder_optimizer, trained)
    with _blame("logger"), tempfile.TemporaryDirectory() as folder:
        experiment.logger(Path(folder))
    return model


def build_autoencoder(parts: ModelParts) -> ChunkAutoencoder:
    """The untrained autoencoder in the wrappers of the config, which are not fitted."""
    new = parts.autoencoder(parts.chunk_size, parts.vocab_size, parts.latent_size)
    return wrapped(new, standardize=parts.standardize, normalize=parts.normalize)


def _assemble(
    parts: ModelParts,
    head: Callable[[int, int], Head],
    autoencoder: ChunkAutoencoder | None,
    *,
    call: Callable[[Callable[[], nn.Module]], Any],
) -> LanguageModel:
    """Build each part through `call`, the head last."""
    if parts.model == "token_lm":
        with _blame("backbone"):
            backbone = call(lambda: parts.backbone(parts.hidden_size))
        return call(
            lambda: TokenLM(
                parts.vocab_size, backbone=backbone, tie_embeddings=parts.tie_embeddings
            )
        )
    if autoencoder is None:
        with _blame("autoencoder"):
            autoencoder = call(lambda: build_autoencoder(parts))
    with _blame("hidden_size"):
        encoder = call(
            lambda: encoder_of(
                parts.input,
                autoencoder,
                parts.hidden_size,
                noise=parts.input_noise,
                warmup_steps=parts.input_noise_warmup,
            )
        )
    with _blame("backbone"):
        backbone = call(lambda: parts.backbone(parts.hidden_size))
    with _blame("head"):
        built = call(lambda: head(parts.hidden_size, parts.latent_size))
        return CALM(
            autoencoder=autoencoder,
            input_encoder=encoder,
            backbone=backbone,
            head=built,
            cross_entropy_weight=parts.cross_entropy_weight,
            pull_weight=parts.pull_weight,
        )


def check_device(accelerator: str, devices: int | str = 1) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        ConfigError: If PyTorch finds no such device, or fewer of them.
    """
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if accelerator in has and not has[accelerator]():
        raise ConfigError(
            f"accelerator must be a device of this machine; got {accelerator!r}, but PyTorch "
            "finds none. Use auto, which takes the fastest device, or cpu."
        )
    gpus = torch.cuda.device_count() if accelerator in ("auto", "cuda") else 0
    if gpus and isinstance(devices, int) and devices > gpus:
        raise ConfigError(
            f"devices must be at most {gpus}, the number of GPUs of this machine; got {devices}. "
            "Use auto for all of them, or accelerator cpu."
        )


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a class named by a config may raise anything
        raise refused(key, error) from None
