"""What decides a trained model and a result: equal keys, equal numbers.

Training is kept under a key of what decides the weights: the text, the config without what only
shows or measures, and the code that computes them, which is that of the classes that the config
names and of the loop around them. So an autoencoder is trained once for all variants that have it
in common, variants that differ in how a trained head is sampled share its training, and an
interrupted comparison goes on. A result's key has the code that measures as well.

Rounding is not in a key: another device, or another number of threads, gives other last digits.
What a run had stands beside its numbers.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from calmkit.config import TrainExperiment
from calmkit.data import Corpus
from calmkit.provenance import code_of, named_in

from .evaluation_plan import EvaluationPlan

__all__ = [
    "autoencoder_key",
    "code_of_result",
    "code_of_training",
    "deciding",
    "result_key",
    "training_key",
    "values_of",
]

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


# Where the code begins that trains anything, and that builds and measures models besides.
_TRAINS = (
    "calmkit.training.loop", "calmkit.data.corpus", "calmkit.data.mixed_corpus",
    "calmkit.data.batches",
)  # fmt: skip
_BUILDS = "calmkit.config.building"
_TRAINER = "calmkit.experiments.trainer"
# What reads configs, and shows and keeps what comes out, computes nothing.
_SHELL = (
    "calmkit.cli", "calmkit.config", "calmkit.provenance", "calmkit.saving",
    "calmkit.experiments.run_progress",
)  # fmt: skip


def values_of(text: str) -> dict[str, Any]:
    """The values of an effective config, which is parsed once; a copy each time."""
    return copy.deepcopy(_parsed(text))


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config that decide the weights."""
    kept = {key: value for key, value in config.items() if key not in _FREE}
    for key in ("autoencoder_training", "training"):
        kept[key] = {name: value for name, value in kept[key].items() if name not in _FREE}
    return kept


def code_of_training(text: str) -> dict[str, str]:
    """The code that decides the weights of a config's model, as `code_of` gives it.

    Args:
        text: The config, effective; what it names has been imported.
    """
    return _training_code(deciding(values_of(text)), _BUILDS)


def code_of_result(text: str) -> dict[str, str]:
    """The code behind everything that is reported of a config, as `code_of` gives it.

    Args:
        text: The config, effective; what it names has been imported.
    """
    config = {key: value for key, value in values_of(text).items() if key != "logger"}
    return code_of((*_TRAINS, _BUILDS, _TRAINER), named=named_in(config), without=_SHELL)


def autoencoder_key(text: str, experiment: TrainExperiment, corpus: Corpus) -> str:
    """Of the autoencoder that a config trains.

    Args:
        text: The config, effective.
        experiment: What it says, with the seed of this run.
        corpus: The prepared text.
    """
    config = deciding(_config(text, experiment))
    kept = {key: config[key] for key in _OF_AUTOENCODER}
    return _digest(kept, corpus, _training_code(kept, "calmkit.autoencoders.standardized"))


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
        # A function that makes a head is named alone.
        if isinstance(config["head"], Mapping):
            arguments = config["head"].get("init_args", {})
            kept = {name: v for name, v in arguments.items() if name not in sampling_arguments}
            config["head"] = {**config["head"], "init_args": kept}
    return _digest(config, corpus, _training_code(config, _BUILDS))


def result_key(text: str, experiment: TrainExperiment, corpus: Corpus) -> str:
    """Of everything that is reported of a config."""
    kept = {key: v for key, v in _config(text, experiment).items() if key not in _PATHS}
    rows = EvaluationPlan.of_training(experiment, corpus).rows
    # Rows are measured, and the first document gives the prompt of the text that is shown.
    prompt = corpus.validation.document(0)
    measured = [rows.batch.tokens, rows.batch.real, rows.document]
    content = b"".join([prompt.tobytes(), *(tensor.numpy().tobytes() for tensor in measured)])
    kept["measured on"] = hashlib.sha256(content).hexdigest()
    return _digest(kept, corpus, code_of_result(text))


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


def _config(text: str, experiment: TrainExperiment) -> dict[str, Any]:
    config = values_of(text)
    config["seed"] = experiment.seed
    config["training"] |= {
        key: getattr(experiment.training, key)
        for key in ("steps", "warmup_steps", "validate_every")
    }
    return config


def _training_code(config: Mapping[str, Any], entry: str) -> dict[str, str]:
    """Of what a config names, and of the loop around it; measuring on the way changes nothing."""
    shell = (*_SHELL, "calmkit.experiments")
    entries, alone = (*_TRAINS, entry), (_TRAINER,)
    return code_of(entries, named=named_in(config), alone=alone, without=shell)


def _digest(config: Mapping[str, Any], corpus: Corpus, code: Mapping[str, str]) -> str:
    content = {"config": config, "text": corpus.digest, "code": code}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
