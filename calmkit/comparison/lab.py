"""The stages of an experiment, on one text and one device: train, build, measure, describe."""

import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.autoencoders import ChunkAutoencoder, StandardizedAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.comparison.progress import Display
from calmkit.comparison.results import ComparisonResult, HeadResult
from calmkit.comparison.showing import microseconds_per_token, sample_text
from calmkit.config import Experiment, assemble
from calmkit.data import Corpus, EvaluationRows, TrainingBatches, evaluation_rows
from calmkit.heads import Head
from calmkit.metrics import reconstructed_tokens
from calmkit.models import CALM
from calmkit.training import (
    Evaluation,
    TrainingResult,
    TrainingSettings,
    evaluate,
    evaluate_unigram,
    fit,
    step_generator,
)

__all__ = ["Lab", "model_objective"]

_STANDARDIZE_ON_BATCHES = 16
_UNTRAINED_ROWS_DIVISOR = 4
_PROMPT_TOKENS = 16
_LIBRARIES = ("calmkit", "torch", "numpy", "tokenizers", "lightning-fabric")


class Lab:
    """What all stages of one experiment share."""

    def __init__(self, experiment: Experiment, corpus: Corpus, display: Display) -> None:
        from lightning_fabric import Fabric

        self.experiment = experiment
        self.corpus = corpus
        self.display = display
        self.fabric = Fabric(
            accelerator=experiment.accelerator, devices=1, precision=experiment.precision
        )
        self.rows = self._rows(experiment.evaluation.rows)
        self.few_rows = self._rows(max(2, experiment.evaluation.rows // _UNTRAINED_ROWS_DIVISOR))
        self.validation_rows = self._rows(experiment.validation_rows)
        self.protocol = ""
        self.shared_parameters = 0

    def train_autoencoder(self, *, directory: Path | None) -> tuple[ChunkAutoencoder, float]:
        """The trained autoencoder, frozen, and the share of held-out tokens that it restores."""
        experiment = self.experiment
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
            autoencoder = experiment.autoencoder(*sizes)
        batch_at = self._fit(
            "autoencoder",
            autoencoder,
            _autoencoder_objective,
            experiment.autoencoder_training,
            lambda module: {"accuracy": self.accuracy(autoencoder)},
            directory,
            optimizer=experiment.autoencoder_optimizer,
        )[1]
        if experiment.standardize:
            chunks = [batch_at(step) for step in range(_STANDARDIZE_ON_BATCHES)]
            tokens = torch.cat([batch.tokens[batch.real.all(dim=-1)] for batch in chunks])
            autoencoder.eval()
            autoencoder = StandardizedAutoencoder(autoencoder).to(self.fabric.device)
            autoencoder.fit(tokens.to(self.fabric.device))
        return autoencoder.freeze(), self.accuracy(autoencoder)

    def train_head(
        self,
        name: str,
        factory: Callable[[int, int], Head],
        autoencoder: ChunkAutoencoder,
        *,
        directory: Path | None,
    ) -> tuple[CALM, HeadResult]:
        """A model with the given head, trained and measured."""
        model = self.build(name, factory, autoencoder)
        untrained = self.measure(model, few=True)
        training, _ = self._fit(
            name,
            model,
            model_objective,
            self.experiment.training,
            lambda module: {"loss": self.validation_loss(model)},
            directory,
            optimizer=self.experiment.optimizer,
        )
        self.display.note(f"{name}: measuring on held-out text ...")
        return model, self.describe(name, model, untrained, training=training)

    def build(
        self, name: str, factory: Callable[[int, int], Head], autoencoder: ChunkAutoencoder
    ) -> CALM:
        """An untrained model; equal seeds give equal backbones, whatever the head."""
        with torch.random.fork_rng():
            torch.manual_seed(self.experiment.seed)
            model = assemble(self.experiment, factory, autoencoder=autoencoder, key=name)
        return model.to(self.fabric.device)

    def describe(
        self, name: str, model: CALM, untrained: Evaluation, *, training: TrainingResult | None
    ) -> HeadResult:
        """Everything that is reported of one model."""
        evaluation = self.measure(model, few=False)
        self.protocol = evaluation.protocol
        head = model.head
        self.shared_parameters = _count(model.backbone) + _count(model.input_encoder)
        return HeadResult(
            name=name,
            class_path=f"{type(head).__module__}.{type(head).__qualname__}",
            brier_lm=evaluation.brier.brier_lm,
            brier=evaluation.brier.brier,
            untrained_brier=untrained.brier.brier,
            energy_score=evaluation.energy_score,
            untrained_energy_score=untrained.energy_score,
            parameters=_count(head),
            evaluations_per_sample=head.evaluations_per_sample,
            training_seconds=math.nan if training is None else training.seconds,
            microseconds_per_token=microseconds_per_token(model, self._prompt()),
            sample_text=sample_text(
                model,
                self.corpus.tokenizer,
                self._prompt(),
                max_new_tokens=self.experiment.sample_tokens,
                seed=self.experiment.seed,
            ),
            training_losses=() if training is None else training.losses,
            validation_losses=()
            if training is None
            else tuple((step, values["loss"]) for step, values in training.validation),
        )

    def result(self, heads: tuple[HeadResult, ...], accuracy: float) -> ComparisonResult:
        """All that was found."""
        counts = torch.from_numpy(self.corpus.train.token_counts())
        unigram = evaluate_unigram(
            counts / counts.sum(), self.rows, self.experiment.evaluation, seed=self.experiment.seed
        )
        return ComparisonResult(
            heads=heads,
            unigram_brier=unigram.brier,
            shared_parameters=self.shared_parameters,
            autoencoder_accuracy=accuracy,
            corpus_name=self.corpus.name,
            corpus_digest=self.corpus.digest,
            protocol=self.protocol,
            seed=self.experiment.seed,
            hardware=_hardware(self.fabric.device),
            versions={"python": platform.python_version()}
            | {library: version(library) for library in _LIBRARIES},
        )

    @torch.no_grad()
    def accuracy(self, autoencoder: ChunkAutoencoder) -> float:
        """Share of held-out tokens that come back from the posterior's mean."""
        batch = self.rows.batch.to(self.fabric.device)
        return float(reconstructed_tokens(autoencoder, batch.tokens)[batch.real].double().mean())

    @torch.no_grad()
    def validation_loss(self, model: CALM) -> float:
        """The head's own loss on held-out rows, with the same draws each time."""
        generator = step_generator(self.experiment.seed, 0, device=self.fabric.device)
        batch = self.validation_rows.batch.to(self.fabric.device)
        with self.fabric.autocast():
            return float(model.loss(batch, generator).total)

    def measure(self, model: CALM, *, few: bool) -> Evaluation:
        """Scores on held-out rows, `few` of them where a rough number will do."""
        rows = self.few_rows if few else self.rows
        return evaluate(model, rows, self.experiment.evaluation, seed=self.experiment.seed)

    def _fit(
        self,
        name: str,
        module: nn.Module,
        objective: Callable[[nn.Module, ChunkBatch, torch.Generator], Mapping[str, Tensor]],
        settings: TrainingSettings,
        validate: Callable[[nn.Module], Mapping[str, float]],
        directory: Path | None,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> tuple[TrainingResult, Callable[[int], ChunkBatch]]:
        experiment = self.experiment
        batches = TrainingBatches(
            self.corpus.train,
            chunk_size=experiment.chunk_size,
            positions=experiment.positions,
            batch_size=settings.batch_size,
            seed=experiment.seed,
        )
        result = fit(
            module,
            objective,
            batches.batch_at,
            settings=settings,
            seed=experiment.seed,
            optimizer=optimizer,
            validate=validate,
            fabric=self.fabric,
            directory=directory,
            loggers=[experiment.logger(experiment.output / "logs" / name)],
            progress=self.display.track(name),
        )
        return result, batches.batch_at

    def _rows(self, count: int) -> EvaluationRows:
        return evaluation_rows(
            self.corpus.validation,
            chunk_size=self.experiment.chunk_size,
            positions=self.experiment.positions,
            max_rows=count,
            seed=self.experiment.seed,
        )

    def _prompt(self) -> list[int]:
        """How a held-out document begins."""
        return self.corpus.validation.document(0)[:_PROMPT_TOKENS].tolist()


def _autoencoder_objective(
    module: nn.Module, batch: ChunkBatch, generator: torch.Generator
) -> Mapping[str, Tensor]:
    loss = cast(ChunkAutoencoder, module).loss(batch.tokens, generator)
    return {
        "loss": loss.total.mean(),
        "reconstruction": loss.reconstruction.mean(),
        "kl": loss.kl.mean(),
    }


def model_objective(
    module: nn.Module, batch: ChunkBatch, generator: torch.Generator
) -> Mapping[str, Tensor]:
    """What training a CALM minimises: the head's mean loss."""
    return {"loss": cast(CALM, module).loss(batch, generator).total}


def _count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
