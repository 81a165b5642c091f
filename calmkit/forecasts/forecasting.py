"""What a run will need, forecast from its config before any weight exists."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.accounting import Forecast, TrainingPlan, forecast
from calmkit.chunking import ChunkBatch
from calmkit.cluster import units_of
from calmkit.config import TrainExperiment, check_parts
from calmkit.data import Corpus, TrainingBatches
from calmkit.experiments import PreparedPairs, autoencoder_objective, model_objective
from calmkit.nn import targets_of_full_blocks, without_memory
from calmkit.training import TrainingSettings

__all__ = ["forecast_finetuning", "forecast_training"]


def forecast_training(
    experiment: TrainExperiment, corpus: Corpus, *, devices: int
) -> dict[str, Forecast]:
    """Forecast the stages of a training, in their order, by name.

    Args:
        experiment: The experiment.
        corpus: Its text; the first rows give the lengths of documents.
        devices: Number of devices.
    """

    def batch_of(settings: TrainingSettings) -> Callable[[int], ChunkBatch]:
        batches = TrainingBatches(
            corpus.train,
            chunk_size=experiment.chunk_size,
            positions=experiment.positions,
            batch_size=settings.batch_size,
            seed=experiment.seed,
        )
        return lambda rows: batches.batch_at(0, slice(rows))

    found = {}
    if experiment.model == "calm" and experiment.autoencoder_from is None:
        settings = experiment.autoencoder_training
        sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
        found["autoencoder"] = _forecast(
            experiment,
            without_memory(lambda: experiment.autoencoder(*sizes)),
            lambda module, batch: autoencoder_objective(module, batch, None)["loss"],
            experiment.autoencoder_optimizer,
            settings,
            batch_of(settings),
            devices,
        )
    settings = experiment.training
    found["model"] = _forecast(
        experiment,
        check_parts(experiment),
        _model_loss,
        experiment.optimizer,
        settings,
        batch_of(settings),
        devices,
    )
    return found


def forecast_finetuning(
    experiment: TrainExperiment, prepared: PreparedPairs, *, devices: int
) -> dict[str, Forecast]:
    """Forecast a fine-tuning; its rows are pairs.

    Args:
        experiment: The experiment.
        prepared: The model and the pairs.
        devices: Number of devices.
    """
    first = prepared.train.batch_at(0)
    found = _forecast(
        experiment,
        prepared.model,
        _model_loss,
        experiment.optimizer,
        experiment.training,
        lambda rows: first.rows(slice(rows)),
        devices,
    )
    return {"finetune": found}


def _forecast(
    experiment: TrainExperiment,
    module: nn.Module,
    loss: Callable[[nn.Module, ChunkBatch], Tensor],
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    settings: TrainingSettings,
    rows: Callable[[int], ChunkBatch],
    devices: int,
) -> Forecast:
    """Forecast one stage.

    Args:
        experiment: The experiment.
        module: What is trained.
        loss: What it minimises on some rows.
        optimizer: Its optimiser.
        settings: Settings of the stage.
        rows: The first rows of the first batch.
        devices: Number of devices.
    """
    plan = TrainingPlan(
        steps=settings.steps,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        averages=settings.ema is not None,
        positions=experiment.positions,
        chunk_size=experiment.chunk_size,
        devices=devices,
        shards=experiment.strategy == "fsdp",
        mixed=experiment.precision == "bf16-mixed",
    )

    def loss_of(count: int) -> Callable[[nn.Module], Tensor]:
        batch = rows(count)
        return lambda outline: loss(outline, batch)

    # Without the first chunk of a row, which is not predicted.
    targets_of_row = (experiment.positions - 1) * experiment.chunk_size
    rows_of_full_blocks = -(-targets_of_full_blocks(experiment.vocab_size) // targets_of_row)
    return forecast(
        module,
        loss_of,
        optimizer,
        plan,
        units_of(module),
        linear_from=rows_of_full_blocks * experiment.positions,
    )


def _model_loss(module: nn.Module, batch: ChunkBatch) -> Tensor:
    return model_objective(module, batch, None).values["loss"]
