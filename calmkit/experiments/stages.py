"""The stages of one run, on one text and one device: autoencoder, model, training, measuring."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.accounting import costs_per_token
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

from .measuring import measure_run
from .preparing import rows_of
from .run_progress import RunProgress
from .run_result import RunResult

__all__ = ["Lab", "model_objective"]

_STANDARDIZE_ON_BATCHES = 16
# A rough number will do before training and on the way.
_FEW_DRAWS = 2


class Lab:
    """What all stages of one run share."""

    def __init__(self, experiment: TrainExperiment, corpus: Corpus, display: RunProgress) -> None:
        from lightning_fabric import Fabric

        self.experiment, self.corpus, self.display = experiment, corpus, display
        self.fabric = Fabric(
            accelerator=experiment.accelerator, devices=1, precision=experiment.precision
        )
        self.rows = rows_of(experiment, corpus, experiment.evaluation.rows)
        self.few_rows = rows_of(experiment, corpus, max(2, experiment.validation_rows))

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
        """An untrained model; equal seeds give equal backbones, whatever the head."""
        with torch.random.fork_rng():
            torch.manual_seed(self.experiment.seed)
            model = assemble(self.experiment, self.experiment.head, autoencoder=autoencoder)
        return model.to(self.fabric.device)

    def train(self, name: str, model: LanguageModel, directory: Path | None) -> TrainingResult:
        """Train a model in place.

        Args:
            name: What to call it while it trains.
            model: By `build`.
            directory: Where its training is kept and, if it was finished, found.
        """
        return self._fit(
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

    def describe(self, model: LanguageModel, training: TrainingResult | None) -> RunResult:
        """Everything that is reported of a model.

        Args:
            model: The model.
            training: What its training left; None if it was not trained here.
        """
        experiment, settings = self.experiment, self.experiment.training
        costs = costs_per_token(model, experiment.positions)
        steps = 0 if training is None else training.steps
        tokens = steps * settings.batch_size * experiment.positions * experiment.chunk_size
        validation = () if training is None else training.validation
        return RunResult(
            seed=experiment.seed,
            steps=steps,
            trained_tokens=tokens,
            training_flops=costs.training * tokens if steps else math.nan,
            sampling_flops=costs.sampling,
            training_seconds=math.nan if training is None else training.seconds,
            training_losses=() if training is None else training.losses,
            validation_losses=tuple((step, values["loss"]) for step, values in validation),
            validation_brier=tuple((step, values["brier_1"]) for step, values in validation),
            **vars(measure_run(model, self.rows, experiment, self.corpus)),
        )

    @torch.no_grad()
    def accuracy(self, autoencoder: ChunkAutoencoder) -> float:
        """Share of held-out tokens that come back from the posterior's mean."""
        return restored_share(autoencoder, self.rows.batch.to(self.fabric.device))

    @torch.no_grad()
    def validation_loss(self, model: LanguageModel) -> float:
        """The model's own loss on held-out rows, with the same draws each time."""
        generator = step_generator(self.experiment.seed, 0, device=self.fabric.device)
        batch = self.few_rows.batch.to(self.fabric.device)
        with self.fabric.autocast():
            return float(model.loss(batch, generator).total)

    def rough_brier(self, model: LanguageModel) -> Estimate:
        """Brier-1 in per cent, from few rows and draws."""
        settings = replace(self.experiment.evaluation, draws=_FEW_DRAWS)
        return score(
            model,
            self.few_rows,
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
