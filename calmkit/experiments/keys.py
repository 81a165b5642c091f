"""Keys of trainings and results: equal keys mean equal numbers.

A training is stored under a key of everything that determines its weights: the text, the relevant
part of the config, and the code of the named classes and of the training loop. An autoencoder is
therefore trained once for all variants that share it, variants that differ only in how a trained
head is sampled share its training, and an interrupted comparison can resume. The key of a result
also covers the evaluation code.

Keys ignore the hardware: another device or number of threads changes the rounding. A result states
both.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from calmkit.config import TrainExperiment, values_of
from calmkit.data import Corpus
from calmkit.provenance import code_of, named_in

from .evaluation_plan import EvaluationPlan
from .training_inputs import inputs_of

__all__ = [
    "autoencoder_key",
    "code_of_result",
    "code_of_training",
    "deciding",
    "result_key",
    "training_key",
]

# Config keys that do not affect the weights; of a named autoencoder, the digest does.
_IRRELEVANT = {
    "autoencoder_from",
    "output", "cache_dir", "accelerator", "devices", "num_nodes", "strategy", "logger",
    "evaluation", "evaluation_data", "validation_rows", "sampler", "sample_tokens",
    "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "dry_run",
}  # fmt: skip
# Paths are replaced by the digest of what they hold.
_PATHS = {"autoencoder_from", "output", "cache_dir", "data", "evaluation_data"}
_AUTOENCODER_KEYS = (
    "vocab_size", "chunk_size", "latent_size", "positions", "autoencoder", "standardize",
    "normalize", "seed", "autoencoder_optimizer", "autoencoder_training", "precision", "compile",
    "evaluation_seed", "validation_fraction",  # they determine the held-out split
)  # fmt: skip
# A softmax model ignores these, and those of the autoencoder.
_ONLY_OF_CALM = {
    "head", "latent_size", "standardize", "normalize", "input", "input_noise",
    "input_noise_warmup", "cross_entropy_weight", "pull_weight",
}  # fmt: skip

# Entry modules of the code that trains, builds, and evaluates models.
_TRAINING_MODULES = (
    "calmkit.training.loop", "calmkit.data.corpus", "calmkit.data.mixed_corpus",
    "calmkit.data.batches", "calmkit.devices.float32_products",
)  # fmt: skip
_BUILDING_MODULE = "calmkit.config.building"
_TRAINER_MODULE = "calmkit.experiments.trainer"
_HARDWARE_MODULE = "calmkit.experiments.hardware"
# Modules that read configs, display progress, save models or word errors compute no numbers.
_NO_NUMBERS = (
    "calmkit.cli", "calmkit.config", "calmkit.provenance", "calmkit.saving", "calmkit.schema",
    "calmkit.experiments.run_progress", "calmkit.training.out_of_memory",
)  # fmt: skip


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config that determine the weights."""
    kept = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    for key in ("autoencoder_training", "training"):
        kept[key] = {name: value for name, value in kept[key].items() if name not in _IRRELEVANT}
    return kept


def code_of_training(text: str) -> dict[str, str]:
    """Digests of the code that determines the weights of a config's model; see `code_of`.

    Args:
        text: The effective config; the classes it names must be imported.
    """
    return _training_code(deciding(values_of(text)), _BUILDING_MODULE)


def code_of_result(text: str) -> dict[str, str]:
    """Digests of the code that determines the result of a config; see `code_of`.

    Args:
        text: The effective config; the classes it names must be imported.
    """
    config = {key: value for key, value in values_of(text).items() if key != "logger"}
    return code_of(
        (*_TRAINING_MODULES, _BUILDING_MODULE, _TRAINER_MODULE),
        named=named_in(config),
        without=_NO_NUMBERS,
    )


def autoencoder_key(text: str, experiment: TrainExperiment, corpus: Corpus) -> str:
    """The key of a config's trained autoencoder.

    Args:
        text: The effective config.
        experiment: Its experiment, with the seed of the run.
        corpus: The prepared text.
    """
    config = deciding(_config(text, experiment))
    kept = {key: config[key] for key in _AUTOENCODER_KEYS}
    code = _training_code(kept, "calmkit.autoencoders")
    return _digest(kept, experiment, corpus, code)


def training_key(
    text: str, experiment: TrainExperiment, corpus: Corpus, sampling_arguments: Collection[str]
) -> str:
    """The key of a config's trained model.

    Args:
        text: The effective config.
        experiment: Its experiment, with the seed and the steps of the run.
        corpus: The prepared text.
        sampling_arguments: Arguments of its head that are used only in sampling.
    """
    config = deciding(_config(text, experiment))
    del config["data"]
    if experiment.model == "token_lm":
        config = {key: config[key] for key in config if not key.startswith("autoencoder")}
        config = {key: config[key] for key in config if key not in _ONLY_OF_CALM}
    else:
        # A function that makes a head has no arguments in the config.
        if isinstance(config["head"], Mapping) and not _trains_on_samples(config):
            arguments = config["head"].get("init_args", {})
            kept = {name: v for name, v in arguments.items() if name not in sampling_arguments}
            config["head"] = {**config["head"], "init_args": kept}
    return _digest(config, experiment, corpus, _training_code(config, _BUILDING_MODULE))


def result_key(
    text: str, experiment: TrainExperiment, corpus: Corpus, *, tuning: bool = False
) -> str:
    """The key of a config's result; of a score on the rows for tuning, if that is what it is."""
    kept = {key: v for key, v in _config(text, experiment).items() if key not in _PATHS}
    plan = EvaluationPlan.of_training(experiment, corpus)
    rows = plan.rows_to_tune() if tuning else plan.rows
    # The rows are scored, and the first document provides the prompt of the sample text.
    prompt = corpus.validation.document(0)
    measured = [rows.batch.tokens, rows.batch.real, rows.document]
    content = b"".join([prompt.tobytes(), *(tensor.numpy().tobytes() for tensor in measured)])
    kept["measured on"] = hashlib.sha256(content).hexdigest()
    return _digest(kept, experiment, corpus, code_of_result(text))


def _trains_on_samples(config: Mapping[str, Any]) -> bool:
    """Whether the loss reads samples of the head, and therefore its sampling arguments."""
    return bool(config["cross_entropy_weight"] or config["pull_weight"])


def _config(text: str, experiment: TrainExperiment) -> dict[str, Any]:
    config = values_of(text)
    config["seed"] = experiment.seed
    config["training"] |= {
        key: getattr(experiment.training, key)
        for key in ("steps", "warmup_steps", "validate_every")
    }
    return config


def _training_code(config: Mapping[str, Any], entry: str) -> dict[str, str]:
    """Digests of the named classes and the training loop; validation does not affect weights."""
    shell = (*_NO_NUMBERS, "calmkit.accounting", "calmkit.experiments")
    entries, alone = (*_TRAINING_MODULES, entry), (_TRAINER_MODULE, _HARDWARE_MODULE)
    return code_of(entries, named=named_in(config), alone=alone, without=shell)


def _digest(
    config: Mapping[str, Any],
    experiment: TrainExperiment,
    corpus: Corpus,
    code: Mapping[str, str],
) -> str:
    content = {"config": config, "code": code, **inputs_of(experiment, corpus)}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
