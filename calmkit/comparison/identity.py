"""What decides a trained model and a result: equal keys, equal numbers.

Training is kept under a key of what decides the weights: the text, the config without what only
shows or measures, and the code. So an autoencoder is trained once for all variants that have it in
common, variants that differ in how a trained head is sampled share its training, and an
interrupted comparison goes on.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

import calmkit
from calmkit.comparison.preparing import rows_of
from calmkit.config import TrainExperiment
from calmkit.data import Corpus

__all__ = ["autoencoder_key", "deciding", "result_key", "training_key"]

# What does not reach the weights.
_FREE = {
    "output", "cache_dir", "accelerator", "logger", "evaluation", "evaluation_data",
    "validation_rows", "sampler", "sample_tokens", "log_every", "validate_every",
    "checkpoint_every", "keep_checkpoints",
}  # fmt: skip
# Paths say less than the digest of what stands there.
_PATHS = {"output", "cache_dir", "data", "evaluation_data"}
_OF_AUTOENCODER = (
    "vocab_size", "chunk_size", "latent_size", "positions", "autoencoder", "standardize", "seed",
    "autoencoder_optimizer", "autoencoder_training", "precision",
    "evaluation_seed", "validation_fraction",  # they say what is held out
)  # fmt: skip


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config that decide the weights."""
    kept = {key: value for key, value in config.items() if key not in _FREE}
    for key in ("autoencoder_training", "training"):
        kept[key] = {name: value for name, value in kept[key].items() if name not in _FREE}
    return kept


def autoencoder_key(text: str, experiment: TrainExperiment, corpus: Corpus) -> str:
    """Of the autoencoder that a config trains.

    Args:
        text: The config, effective.
        experiment: What it says, with the seed of this run.
        corpus: The prepared text.
    """
    config = deciding(_config(text, experiment))
    return _digest({key: config[key] for key in _OF_AUTOENCODER}, corpus)


def training_key(
    text: str, experiment: TrainExperiment, corpus: Corpus, sampling_arguments: Collection[str]
) -> str:
    """Of the model that a config trains.

    Args:
        text: The config, effective.
        experiment: What it says, with the seed and the steps of this run.
        corpus: The prepared text.
        sampling_arguments: Arguments of its head that only sampling reads.
    """
    config = deciding(_config(text, experiment))
    del config["data"]
    if experiment.model == "token_lm":
        config = {key: config[key] for key in config if not key.startswith("autoencoder")}
        del config["head"], config["latent_size"], config["standardize"]
    else:
        arguments = config["head"].get("init_args", {})
        kept = {name: v for name, v in arguments.items() if name not in sampling_arguments}
        config["head"] = {**config["head"], "init_args": kept}
    return _digest(config, corpus)


def result_key(text: str, experiment: TrainExperiment, corpus: Corpus) -> str:
    """Of everything that is reported of a config."""
    kept = {key: v for key, v in _config(text, experiment).items() if key not in _PATHS}
    rows = rows_of(experiment, corpus, experiment.evaluation.rows).batch.tokens
    kept["measured on"] = hashlib.sha256(rows.numpy().tobytes()).hexdigest()
    return _digest(kept, corpus)


def _config(text: str, experiment: TrainExperiment) -> dict[str, Any]:
    config = yaml.safe_load(text)
    config["seed"] = experiment.seed
    config["training"] |= {
        key: getattr(experiment.training, key)
        for key in ("steps", "warmup_steps", "validate_every")
    }
    return config


def _digest(config: Mapping[str, Any], corpus: Corpus) -> str:
    content = {"config": config, "text": corpus.digest, "code": _code_digest()}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _code_digest() -> str:
    """Of this package's files and the version of torch: other code, other numbers."""
    folder = Path(calmkit.__file__).parent
    digest = hashlib.sha256(torch.__version__.encode())
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
