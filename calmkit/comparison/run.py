"""The work behind the commands: train an autoencoder, then heads on it, and measure them.

What is equal for all heads of a comparison: text and rows, their order, the frozen autoencoder,
the backbone's first weights, steps, optimiser, seed, and the rows, draws and resamples of the
evaluation. Only the head differs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calmkit.comparison.checkpoint import Checkpoint, save_checkpoint
from calmkit.comparison.lab import Lab
from calmkit.comparison.progress import Display
from calmkit.comparison.results import ComparisonResult, HeadResult
from calmkit.config import CompareExperiment, TrainExperiment
from calmkit.data import Corpus
from calmkit.training import CheckpointError

__all__ = ["check_resumable", "compare", "evaluate_checkpoint", "train"]

_CHECKPOINTS = "checkpoints"
# What may differ when a run is resumed: it does not reach the weights.
_FREE = {
    "output", "cache_dir", "accelerator", "logger", "evaluation", "validation_rows",
    "sample_tokens", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints",
}  # fmt: skip


def compare(
    experiment: CompareExperiment, corpus: Corpus, *, config_text: str, display: Display
) -> ComparisonResult:
    """Train every head of an experiment on one autoencoder, and measure each.

    Args:
        experiment: What to do.
        corpus: The prepared text.
        config_text: The effective config; each trained model is saved with its part of it.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    autoencoder, accuracy = lab.train_autoencoder(directory=None)
    heads = []
    for name, factory in experiment.heads.items():
        model, result = lab.train_head(name, factory, autoencoder, directory=None)
        heads.append(result)
        save_checkpoint(
            experiment.output / "models" / name,
            model=model,
            tokenizer=corpus.tokenizer,
            config_text=_config_of_one_head(config_text, name),
            metrics=_metrics(result),
            protocol=lab.protocol,
        )
    return lab.result(tuple(heads), accuracy)


def train(
    experiment: TrainExperiment, corpus: Corpus, *, config_text: str, display: Display
) -> ComparisonResult:
    """Train one model, resuming what the output folder holds of it; save and measure it.

    Args:
        experiment: What to do.
        corpus: The prepared text.
        config_text: The effective config, saved with the model.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    checkpoints = experiment.output / _CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / "config.yaml").write_text(config_text, encoding="utf-8")
    autoencoder, accuracy = lab.train_autoencoder(directory=checkpoints / "autoencoder")
    model, result = lab.train_head(
        "head", experiment.head, autoencoder, directory=checkpoints / "model"
    )
    save_checkpoint(
        experiment.output,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=_metrics(result),
        protocol=lab.protocol,
    )
    return lab.result((result,), accuracy)


def check_resumable(output: Path, config_text: str) -> None:
    """Refuse to train on what another config has begun in the output folder.

    Args:
        output: The folder of `train`; nothing is checked if it holds no run.
        config_text: The effective config.

    Raises:
        CheckpointError: If a key that decides the weights differs; names it.
    """
    import yaml

    begun = output / _CHECKPOINTS / "config.yaml"
    if not begun.is_file():
        return
    before = _deciding(yaml.safe_load(begun.read_text(encoding="utf-8")))
    for key, value in _deciding(yaml.safe_load(config_text)).items():
        if before.get(key) != value:
            raise CheckpointError(
                f"{key} must be as in {begun.parent}, where another run was begun: "
                f"{before.get(key)}; got {value}. Restore it, or choose another output."
            )


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that decide the weights."""
    kept = {key: value for key, value in config.items() if key not in _FREE}
    for key in ("autoencoder_training", "training"):
        settings = {name: value for name, value in kept[key].items() if name not in _FREE}
        # A run at constant rate may be made longer; a decay would have gone another way.
        if settings["decay_to"] == 1.0:
            del settings["steps"]
        kept[key] = settings
    return kept


def evaluate_checkpoint(
    experiment: TrainExperiment, checkpoint: Checkpoint, corpus: Corpus, *, display: Display
) -> ComparisonResult:
    """Measure a saved model on the corpus's held-out text.

    Args:
        experiment: What it was trained by; its evaluation settings are used.
        checkpoint: The saved model.
        corpus: The prepared text.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    model = checkpoint.model.to(lab.fabric.device)
    accuracy = lab.accuracy(model.autoencoder)
    untrained = lab.measure(lab.build("head", experiment.head, model.autoencoder), few=True)
    result = lab.describe("head", model, untrained, training=None)
    return lab.result((result,), accuracy)


def _metrics(result: HeadResult) -> dict[str, float]:
    """What stands on the model card."""
    return {"BrierLM": result.brier_lm, "energy score": result.energy_score.value}


def _config_of_one_head(config_text: str, name: str) -> str:
    """The config of a comparison, with one of its heads as `head`."""
    import yaml

    config = yaml.safe_load(config_text)
    config["head"] = config.pop("heads")[name]
    return yaml.safe_dump(config, sort_keys=False)
