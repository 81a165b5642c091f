"""One run on one text: train the autoencoder and the model, and evaluate it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.accounting import Forecast
from calmkit.autoencoders import ChunkAutoencoder, WrappedAutoencoder, wrapped
from calmkit.chunking import ChunkBatch
from calmkit.config import TrainExperiment, assemble
from calmkit.data import Corpus, EvaluationRows, TrainingBatches
from calmkit.devices import uncompiled
from calmkit.distributions import DiagonalGaussian
from calmkit.evaluation import restored_share, score
from calmkit.heads import Head
from calmkit.metrics import Estimate
from calmkit.models import CALM, LanguageModel
from calmkit.saving import SavedAutoencoder
from calmkit.training import (
    Means,
    Objective,
    TrainingResult,
    TrainingSettings,
    find_checkpoints,
    fit,
    out_of_memory_in,
    step_generator,
)

from .evaluation_plan import EvaluationPlan
from .hardware import at_speed, new_fabric
from .measuring import measure
from .run_progress import RunProgress
from .run_record import RunRecord

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Trainer", "autoencoder_objective", "model_objective"]

# From which wrappers of the autoencoder and heads learn what latents are like.
_BATCHES_SEEN = 16
# A rough estimate suffices for validation during training.
_FEW_DRAWS = 2


class Trainer:
    """Trains and evaluates one model; all stages share the text, device and display."""

    def __init__(
        self,
        experiment: TrainExperiment,
        corpus: Corpus,
        display: RunProgress,
        fabric: "Fabric | None" = None,
        forecasts: Mapping[str, Forecast] | None = None,
    ) -> None:
        """Plan the evaluation; nothing is built yet.

        Args:
            experiment: The experiment.
            corpus: The prepared text.
            display: Receives the progress.
            fabric: The devices, launched; one device if None.
            forecasts: Forecasts of the stages, for the share of the devices' peak in the display.
        """
        self._forecasts = forecasts or {}
        self.experiment, self.corpus, self.display = experiment, corpus, display
        self.fabric = fabric or new_fabric(experiment.accelerator, experiment.precision)
        self.plan = EvaluationPlan.of_training(experiment, corpus)
        self.validation_rows = self.plan.some_rows(max(2, experiment.validation_rows))

    def train_autoencoder(self, directory: Path | None) -> ChunkAutoencoder | None:
        """Train, or load, and freeze the autoencoder; None for a model without one.

        With `ema`, its averaged weights are the ones that the model is trained on.

        Args:
            directory: Folder of its training; a finished training in it is loaded.
        """
        experiment = self.experiment
        if experiment.model == "token_lm":
            return None
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
            autoencoder = experiment.autoencoder(*sizes)
        batch_at = self.batches(experiment.autoencoder_training)
        if experiment.autoencoder_from is None:
            training = self._fit(
                "autoencoder",
                autoencoder,
                autoencoder_objective,
                experiment.autoencoder_training,
                batch_at,
                lambda module: {"accuracy": self.accuracy(autoencoder)},
                directory,
                optimizer=experiment.autoencoder_optimizer,
            )
            if training.average is not None:
                training.average.copy_to_module()
        else:
            # The class is the experiment's own, which is built already.
            trusted = type(autoencoder).__module__.partition(".")[0]
            saved = SavedAutoencoder.of_folder(experiment.autoencoder_from, trust=(trusted,))
            saved.fill(autoencoder)
            autoencoder.to(self.fabric.device)
        keys = {"standardize": experiment.standardize, "normalize": experiment.normalize}
        autoencoder = wrapped(autoencoder.eval(), **keys).to(self.fabric.device)
        if isinstance(autoencoder, WrappedAutoencoder):
            with out_of_memory_in("autoencoder"):
                autoencoder.fit_rows(self._seen(experiment.autoencoder_training))
        return autoencoder.freeze()

    def build(self, autoencoder: ChunkAutoencoder | None) -> LanguageModel:
        """Build an untrained model; with equal seeds the backbone is the same for every head.

        Args:
            autoencoder: The result of `train_autoencoder`. None: an untrained autoencoder, for a
                model that has one.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.experiment.seed)
            model = assemble(self.experiment, self.experiment.head, autoencoder=autoencoder)
        return model.to(self.fabric.device)

    def train_model(
        self, name: str, autoencoder: ChunkAutoencoder | None, directory: Path | None
    ) -> tuple[LanguageModel, TrainingResult]:
        """Train a model; return it with the record of its training.

        Args:
            name: Name of the model in the display.
            autoencoder: The result of `train_autoencoder`.
            directory: Folder of its training; a finished training in it is loaded.
        """
        model = self.build(autoencoder)
        stored = directory is not None and bool(find_checkpoints(directory))  # and will be loaded
        can_start = isinstance(model, CALM) and type(model.head).start_from is not Head.start_from
        if can_start and not stored:
            with out_of_memory_in(name):
                self._start_head(cast(CALM, model))
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

    @torch.no_grad()
    def _start_head(self, model: CALM) -> None:
        seen = self._seen(self.experiment.training)
        encode = model.autoencoder.encode_rows
        posteriors = [encode(batch)[batch.predictable()] for batch in seen]
        target = DiagonalGaussian(
            torch.cat([x.mean for x in posteriors]), torch.cat([x.std for x in posteriors])
        )
        generator = step_generator(self.experiment.seed, 0, device=self.fabric.device)
        model.head.start_from(target, generator)

    def _seen(self, settings: TrainingSettings) -> list[ChunkBatch]:
        """The first batches of a training, each with as many rows as fit in memory."""
        batch_at, rows = self.batches(settings), slice(settings.micro_batch)
        return [batch_at(step, rows).to(self.fabric.device) for step in range(_BATCHES_SEEN)]

    def measure(
        self, model: LanguageModel, training: TrainingResult, *, timed: bool = True
    ) -> RunRecord:
        """Evaluate a trained model, with its averaged weights if it has them.

        Raises:
            OutOfMemory: If an allocation fails.
        """
        experiment, steps = self.experiment, training.steps
        batch_size = experiment.training.batch_size
        tokens = steps * batch_size * experiment.positions * experiment.chunk_size
        kind = "" if training.average is None else "ema_"
        curves = {
            name: tuple((step, values[kind + name]) for step, values in training.validation)
            for name in ("loss", "brier_1")
        }
        with out_of_memory_in("model", during="evaluation"), training.averaged():
            measured = measure(model, self.plan, trained_tokens=tokens, timed=timed)
        result = replace(
            measured,
            steps=steps,
            training_seconds=training.seconds,
            validation_losses=curves["loss"],
            validation_brier=curves["brier_1"],
            protocol=measured.protocol + _averaged(training),
        )
        return RunRecord.of(model, result, devices=self.fabric.world_size)

    @torch.no_grad()
    def accuracy(self, autoencoder: ChunkAutoencoder) -> float:
        """Share of held-out tokens restored from the posterior's mean."""
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
        return self._brier_1(model, self.validation_rows, draws=_FEW_DRAWS)

    def tuning_brier(self, model: LanguageModel) -> Estimate:
        """Brier-1 in per cent, on held-out rows that `measure` does not score."""
        return self._brier_1(
            model, self.plan.rows_to_tune(), draws=self.experiment.evaluation.draws
        )

    def _brier_1(self, model: LanguageModel, rows: EvaluationRows, *, draws: int) -> Estimate:
        settings = replace(self.experiment.evaluation, draws=draws)
        seed = self.experiment.evaluation_seed
        return score(model, rows, settings, seed=seed, highest_order=1).brier.brier[0]

    def batches(self, settings: TrainingSettings) -> Callable[..., ChunkBatch]:
        """The function that returns the batch of a step, or some of its rows."""
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
        batch_at: Callable[..., ChunkBatch],
        validate: Callable[[nn.Module], Mapping[str, float]],
        directory: Path | None,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> TrainingResult:
        experiment, forecast = self.experiment, self._forecasts.get(name)
        at_full_speed = at_speed(module, self.fabric, compiled=experiment.compile)
        with out_of_memory_in(name), at_full_speed:
            return fit(
                module,
                objective,
                batch_at,
                settings=settings,
                seed=experiment.seed,
                optimizer=optimizer,
                validate=uncompiled(validate),
                fabric=self.fabric,
                directory=directory,
                loggers=[experiment.logger(experiment.output / "logs" / name)],
                progress=self.display.track(name),
                flops_per_step=None if forecast is None else forecast.flops_per_step,
            )


def autoencoder_objective(
    module: nn.Module, batch: ChunkBatch, generator: torch.Generator | None
) -> Mapping[str, Tensor]:
    """The training objective of an autoencoder: its mean loss over all chunks."""
    loss = cast(ChunkAutoencoder, module).loss_rows(batch, generator)
    return {
        "loss": loss.total.mean(),
        "reconstruction": loss.reconstruction.mean(),
        "kl": loss.kl.mean(),
    }


def _averaged(training: TrainingResult) -> str:
    """The end of a protocol's sentence."""
    if training.average is None:
        return ""
    return f"; averaged weights, decay {training.average.decay:g}"


def model_objective(
    module: nn.Module, batch: ChunkBatch, generator: torch.Generator | None
) -> Means:
    """The training objective of a model: its mean loss over the counted positions."""
    loss = cast(LanguageModel, module).loss(batch, generator)
    return Means({"loss": loss.total, **loss.parts}, loss.counted.sum())
