"""One run on one text and one device: autoencoder, model, training, measuring."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.autoencoders import ChunkAutoencoder, StandardizedAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.config import TrainExperiment, assemble
from calmkit.data import Corpus, TrainingBatches
from calmkit.evaluation import restored_share, score
from calmkit.metrics import Estimate
from calmkit.models import LanguageModel
from calmkit.training import (
    Means,
    Objective,
    TrainingResult,
    TrainingSettings,
    fit,
    step_generator,
)

from .evaluation_plan import EvaluationPlan
from .hardware import new_fabric
from .measuring import measure
from .run_progress import RunProgress
from .run_record import RunRecord

__all__ = ["Trainer", "model_objective"]

_STANDARDIZE_ON_BATCHES = 16
# A rough number will do before training and on the way.
_FEW_DRAWS = 2


class Trainer:
    """Trains and measures one model; its text, device and display serve all stages."""

    def __init__(self, experiment: TrainExperiment, corpus: Corpus, display: RunProgress) -> None:
        self.experiment, self.corpus, self.display = experiment, corpus, display
        self.fabric = new_fabric(experiment.accelerator, experiment.precision)
        self.plan = EvaluationPlan.of_training(experiment, corpus)
        self.validation_rows = self.plan.some_rows(max(2, experiment.validation_rows))

    def train_autoencoder(self, directory: Path | None) -> ChunkAutoencoder | None:
        """The trained autoencoder, frozen; None for a model that has none.

        Args:
            directory: Where its training is kept and, if it was finished, found.
        """
        experiment = self.experiment
        if experiment.model == "token_lm":
            return None
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
            autoencoder = experiment.autoencoder(*sizes)
        batch_at = self.batches(experiment.autoencoder_training)
        self._fit(
            "autoencoder",
            autoencoder,
            _autoencoder_objective,
            experiment.autoencoder_training,
            batch_at,
            lambda module: {"accuracy": self.accuracy(autoencoder)},
            directory,
            optimizer=experiment.autoencoder_optimizer,
        )
        if experiment.standardize:
            autoencoder = StandardizedAutoencoder(autoencoder.eval()).to(self.fabric.device)
            batches = (batch_at(step) for step in range(_STANDARDIZE_ON_BATCHES))
            autoencoder.fit_rows([batch.to(self.fabric.device) for batch in batches])
        return autoencoder.freeze()

    def build(self, autoencoder: ChunkAutoencoder | None) -> LanguageModel:
        """An untrained model; equal seeds give equal backbones, whatever the head.

        Args:
            autoencoder: By `train_autoencoder`. None: an untrained one, if the model has any.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.experiment.seed)
            model = assemble(self.experiment, self.experiment.head, autoencoder=autoencoder)
        return model.to(self.fabric.device)

    def train_model(
        self, name: str, autoencoder: ChunkAutoencoder | None, directory: Path | None
    ) -> tuple[LanguageModel, TrainingResult]:
        """A trained model, and the record of its training.

        Args:
            name: What to call it while it trains.
            autoencoder: By `train_autoencoder`.
            directory: Where its training is kept and, if it was finished, found.
        """
        model = self.build(autoencoder)
        training = self._fit(
            name,
            model,
            model_objective,
            self.experiment.training,
            self.batches(self.experiment.training),
            lambda module: {
                "loss": self.validation_loss(model),
                "brier_1": self.rough_brier(model).value,
            },
            directory,
            optimizer=self.experiment.optimizer,
        )
        return model, training

    def measure(self, model: LanguageModel, training: TrainingResult) -> RunRecord:
        """Everything that is reported of a model.

        Args:
            model: By `train_model`.
            training: By the same.
        """
        experiment, steps = self.experiment, training.steps
        batch_size = experiment.training.batch_size
        tokens = steps * batch_size * experiment.positions * experiment.chunk_size
        curves = {
            name: tuple((step, values[name]) for step, values in training.validation)
            for name in ("loss", "brier_1")
        }
        result = replace(
            measure(model, self.plan, trained_tokens=tokens),
            steps=steps,
            training_seconds=training.seconds,
            validation_losses=curves["loss"],
            validation_brier=curves["brier_1"],
        )
        return RunRecord.of(model, result)

    @torch.no_grad()
    def accuracy(self, autoencoder: ChunkAutoencoder) -> float:
        """Share of held-out tokens that come back from the posterior's mean."""
        return restored_share(autoencoder, self.plan.rows.batch.to(self.fabric.device))

    @torch.no_grad()
    def validation_loss(self, model: LanguageModel) -> float:
        """The model's own loss on held-out rows, with the same draws each time."""
        generator = step_generator(self.experiment.seed, 0, device=self.fabric.device)
        batch = self.validation_rows.batch.to(self.fabric.device)
        with self.fabric.autocast():
            return float(model.loss(batch, generator).total)

    def rough_brier(self, model: LanguageModel) -> Estimate:
        """Brier-1 in per cent, from few rows and draws."""
        settings = replace(self.experiment.evaluation, draws=_FEW_DRAWS)
        return score(
            model,
            self.validation_rows,
            settings,
            seed=self.experiment.evaluation_seed,
            highest_order=1,
        ).brier.brier[0]

    def batches(self, settings: TrainingSettings) -> Callable[[int], ChunkBatch]:
        """The batch of a step."""
        return TrainingBatches(
            self.corpus.train,
            chunk_size=self.experiment.chunk_size,
            positions=self.experiment.positions,
            batch_size=settings.batch_size,
            seed=self.experiment.seed,
        ).batch_at

    def _fit(
        self,
        name: str,
        module: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        batch_at: Callable[[int], ChunkBatch],
        validate: Callable[[nn.Module], Mapping[str, float]],
        directory: Path | None,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> TrainingResult:
        experiment = self.experiment
        return fit(
            module,
            objective,
            batch_at,
            settings=settings,
            seed=experiment.seed,
            optimizer=optimizer,
            validate=validate,
            fabric=self.fabric,
            directory=directory,
            loggers=[experiment.logger(experiment.output / "logs" / name)],
            progress=self.display.track(name),
        )


def _autoencoder_objective(
    module: nn.Module, batch: ChunkBatch, generator: torch.Generator
) -> Mapping[str, Tensor]:
    loss = cast(ChunkAutoencoder, module).loss_rows(batch, generator)
    return {
        "loss": loss.total.mean(),
        "reconstruction": loss.reconstruction.mean(),
        "kl": loss.kl.mean(),
    }


def model_objective(module: nn.Module, batch: ChunkBatch, generator: torch.Generator) -> Means:
    """What training a model minimises: its mean loss over what counts."""
    loss = cast(LanguageModel, module).loss(batch, generator)
    return Means({"loss": loss.total}, loss.counted.sum())
