"""What an experiment is: the schema of its YAML file, apart from the parts' own arguments."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.heads import Head
from calmkit.training import TrainingSettings
from calmkit.training.evaluation import EvaluationSettings

__all__ = [
    "CompareExperiment", "Experiment", "ModelParts", "TrainExperiment",
]  # fmt: skip

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """Shared sizes, and the parts that every head is used with.

    Attributes:
        vocab_size: Number of token ids.
        chunk_size: K, tokens in a chunk.
        latent_size: Dimensions of a chunk's latent vector.
        hidden_size: Features of the backbone's vectors.
        autoencoder: A ChunkAutoencoder; receives chunk_size, vocab_size and latent_size.
        standardize: Whether heads see latents of mean 0 and variance 1 in each dimension.
        backbone: A Backbone; receives hidden_size.
    """

    vocab_size: int
    chunk_size: int
    latent_size: int
    hidden_size: int
    autoencoder: Callable[[int, int, int], ChunkAutoencoder]
    standardize: bool = True
    backbone: Callable[[int], Backbone]


@dataclass(frozen=True, kw_only=True)
class Experiment(ModelParts):
    """What a training run needs besides its head.

    Attributes:
        data: Text: a .txt or .jsonl file or a folder of them. None: the embedded English text.
        output: Folder for results.
        cache_dir: Folder for prepared text. None: the user's cache folder.
        validation_fraction: Share of the text, in whole documents, that is held out.
        seed: Seed of everything that is drawn.
        positions: Chunks in a row.
        autoencoder_optimizer: Any torch optimiser, for the autoencoder.
        autoencoder_training: Training of the autoencoder.
        optimizer: Any torch optimiser, for backbone and head.
        training: Training of backbone and head.
        evaluation: The evaluation protocol, which is part of a result.
        validation_rows: Rows of held-out text for the validation loss during training.
        sample_tokens: Tokens of generated text that are shown for each head.
        accelerator: Where to compute.
        precision: Number format of the computation.
        logger: A logger of lightning_fabric for the loss curves; receives the folder.
    """

    data: Path | None = None
    output: Path = Path("runs")
    cache_dir: Path | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    positions: int
    autoencoder_optimizer: OptimizerFactory
    autoencoder_training: TrainingSettings
    optimizer: OptimizerFactory
    training: TrainingSettings
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    validation_rows: int = 16
    sample_tokens: int = 120
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    logger: Callable[[Path], Any]

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        _at_least("seed", self.seed, 0)
        # The first chunk of a document is never predicted.
        _at_least("positions", self.positions, 2)
        if self.evaluation.min_context >= self.positions:
            raise ValueError(
                f"evaluation.min_context must be below positions = {self.positions}, or no "
                f"chunk is scored; got {self.evaluation.min_context}."
            )
        _at_least("validation_rows", self.validation_rows, 1)
        _at_least("sample_tokens", self.sample_tokens, 1)

    def heads_by_key(self) -> dict[str, Callable[[int, int], Head]]:
        """The heads to train, by the config key that holds each."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrainExperiment(Experiment):
    """One head.

    Attributes:
        head: A Head; receives hidden_size and latent_size.
        finetune: Prompt and response pairs, a .jsonl file, to train a saved model on. None: train
            a model from the start.
        checkpoint: Folder of that model, written by `calmkit train`. As an option it also gives
            the config to begin with.
    """

    head: Callable[[int, int], Head]
    finetune: Path | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a fine-tuning without its model, and one that would write over it."""
        super().__post_init__()
        if (self.finetune is None) != (self.checkpoint is None):
            given, missing = (
                ("finetune", "checkpoint")
                if self.checkpoint is None
                else ("checkpoint", "finetune")
            )
            raise ValueError(
                f"{missing} must be given with {given}: a .jsonl file of pairs, and the folder of "
                f"the model to train on them; got {given} alone."
            )
        if self.checkpoint is not None and self.checkpoint.resolve() == self.output.resolve():
            raise ValueError(
                f"output must be another folder than checkpoint, which is kept; got {self.output} "
                "for both."
            )

    def heads_by_key(self) -> dict[str, Callable[[int, int], Head]]:
        """The one head."""
        return {"head": self.head}


@dataclass(frozen=True, kw_only=True)
class CompareExperiment(Experiment):
    """Several heads on the same autoencoder, backbone, text, seed and budget.

    Attributes:
        heads: The heads to compare by name; each receives hidden_size and latent_size. An
            argument of one is set as --heads.flow.init_args.depth 6, of all as --head.depth 6.
    """

    heads: dict[str, Callable[[int, int], Head]]

    def __post_init__(self) -> None:
        """Refuse an empty comparison, and names that cannot be file names or options."""
        super().__post_init__()
        if not self.heads:
            raise ValueError("heads must name at least one head; got none.")
        for name in self.heads:
            if not name.replace("-", "_").isidentifier():
                raise ValueError(
                    f"heads must have names of letters, digits, - and _; got {name!r}."
                )

    def heads_by_key(self) -> dict[str, Callable[[int, int], Head]]:
        """Every head of the comparison."""
        return {f"heads.{name}": head for name, head in self.heads.items()}


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
