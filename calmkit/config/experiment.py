"""The schema of an experiment's YAML file, apart from the arguments of the parts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.bounds import check_at_least, check_in
from calmkit.evaluation import EvaluationSettings
from calmkit.heads import Head
from calmkit.orders import shares_of
from calmkit.sampling import Sampler
from calmkit.training import CurveLogger, TrainingSettings

__all__ = ["Experiment", "ModelParts", "TrainExperiment", "WeightedText"]


@dataclass(frozen=True)
class WeightedText:
    """One text of a mixture.

    Attributes:
        path: A folder written by `calmkit prepare`.
        weight: Above 0; each text's share of the rows is proportional to its weight.
    """

    path: Path
    weight: float


OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """Shared sizes, and all parts except the head.

    Attributes:
        model: `calm`, over chunks, or `token_lm`, the softmax baseline over single tokens, which
            has chunk_size 1 and neither an autoencoder nor a head.
        vocab_size: Number of token ids. For a prepared text it may be omitted; the size of the
            text's tokenizer is then used.
        chunk_size: K, tokens in a chunk.
        latent_size: Dimensions of a chunk's latent vector.
        hidden_size: Features of the backbone's vectors.
        autoencoder: A ChunkAutoencoder; receives chunk_size, vocab_size and latent_size.
        standardize: Whether to scale the latents to mean 0 and variance 1 in each dimension.
        normalize: Whether to divide latents by their root mean square (rms) or to put them on a
            sphere (sphere), after the standardisation.
        input: Input of the backbone for each chunk: its tokens, its latent, or both.
        input_noise: Largest noise on this input in training, relative to its size; see
            `NoisyInput`.
        input_noise_warmup: Training steps over which this noise grows from 0.
        cross_entropy_weight: Weight of the cross entropy of the head's decoded sample in the loss.
        pull_weight: Weight of the pull of the head's samples to the aggregate posterior.
        backbone: A Backbone; receives hidden_size.
        tie_embeddings: Whether a token_lm's output shares the weights of its embedding.
    """

    model: Literal["calm", "token_lm"] = "calm"
    vocab_size: int
    chunk_size: int
    latent_size: int
    hidden_size: int
    autoencoder: Callable[[int, int, int], ChunkAutoencoder]
    standardize: bool = True
    normalize: Literal["none", "rms", "sphere"] = "none"
    input: Literal["tokens", "latents", "both"] = "tokens"
    input_noise: float = 0.0
    input_noise_warmup: int = 0
    cross_entropy_weight: float = 0.0
    pull_weight: float = 0.0
    backbone: Callable[[int], Backbone]
    tie_embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class Experiment(ModelParts):
    """The settings of a training run, apart from its head.

    Attributes:
        data: Text: a folder written by `calmkit prepare`; a .txt or .jsonl file or a folder of
            them; or a mixture of prepared texts, {name: {path: FOLDER, weight: NUMBER}, ...}.
            None: the embedded English text.
        output: Folder for results.
        cache_dir: Folder for prepared text. None: the user's cache folder.
        validation_fraction: Share of the text to hold out, in whole documents.
        seed: Seed of all random choices in training: weights, rows, noise.
        positions: Chunks in a row.
        autoencoder_optimizer: A torch optimiser that steps without a closure, for the autoencoder.
        autoencoder_training: Training of the autoencoder.
        optimizer: A torch optimiser that steps without a closure, for backbone and head.
        training: Training of backbone and head.
        evaluation_data: Text to evaluate on. All of it is used, or the held-out side of a prepared
            folder. None: the held-out part of `data`.
        evaluation: The evaluation protocol, which is part of a result.
        evaluation_seed: Seed of the held-out split, the scored rows and the draws; it stays
            fixed while `seed` varies.
        validation_rows: Rows of held-out text for the validation loss during training.
        sampler: Sampler of the measured speed and of the sampler accuracy, and of sample texts
            beside those at fixed temperatures; a class of `calmkit.sampling` by its dotted path.
            None: one draw, at temperature 1.
        sample_tokens: Length of each sample text, in tokens.
        accelerator: Kind of device to compute on.
        devices: Devices of each machine to train on, or `auto` for all its GPUs; on a CPU, the
            number of processes.
        num_nodes: Machines to train on.
        strategy: How several devices share the training. `ddp` keeps all weights on each device;
            `fsdp` divides weights, gradients and the optimiser's state among them. `auto` is
            `ddp` if there are several devices.
        precision: Number format of the computation. `bf16-mixed` is also for CPUs that multiply
            in bfloat16 (AVX512-BF16, AMX), where it takes about two thirds of the time.
        compile: Whether to compile the blocks of the model for its training; see
            `calmkit.devices.compiled_blocks`.
        logger: A logger for the loss curves: csv, tensorboard or wandb, or a class, such as any
            logger of lightning_fabric by its dotted path; receives the folder.
    """

    data: dict[str, WeightedText] | Path | None = None
    output: Path = Path("runs")
    cache_dir: Path | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    positions: int
    autoencoder_optimizer: OptimizerFactory
    autoencoder_training: TrainingSettings
    optimizer: OptimizerFactory
    training: TrainingSettings
    evaluation_data: Path | None = None
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    evaluation_seed: int = 0
    validation_rows: int = 16
    sampler: Sampler | None = None
    sample_tokens: int = 120
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    logger: Callable[[Path], CurveLogger]

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.data, dict):
            shares_of([text.weight for text in self.data.values()])
        check_at_least(0, seed=self.seed, evaluation_seed=self.evaluation_seed)
        if self.model == "token_lm" and self.chunk_size != 1:
            raise ValueError(
                "chunk_size must be 1 for model token_lm, which reads tokens; got "
                f"{self.chunk_size}."
            )
        check_in(
            "[0, inf)",
            input_noise=self.input_noise,
            input_noise_warmup=self.input_noise_warmup,
            cross_entropy_weight=self.cross_entropy_weight,
            pull_weight=self.pull_weight,
        )
        # The first chunk of a document is never predicted.
        check_at_least(2, positions=self.positions)
        if self.evaluation.min_context >= self.positions:
            raise ValueError(
                f"evaluation.min_context must be below positions = {self.positions}, or no "
                f"chunk is scored; got {self.evaluation.min_context}."
            )
        if self.devices != "auto":
            check_at_least(1, devices=self.devices)
        for key in ("num_nodes", "validation_rows", "sample_tokens"):
            check_at_least(1, **{key: getattr(self, key)})


@dataclass(frozen=True, kw_only=True)
class TrainExperiment(Experiment):
    """An experiment with one model.

    Attributes:
        head: A Head; receives hidden_size and latent_size.
        autoencoder_from: Folder of a saved model, or a model of the Hugging Face hub, whose
            trained autoencoder is used, instead of training one; `--autoencoder FOLDER` sets it.
            Class, sizes and arguments are those of the saved one. None: train one.
        finetune: A .jsonl file of prompt and response pairs to fine-tune a saved model on. None:
            train a model from scratch.
        checkpoint: Folder of the model to fine-tune, written by `calmkit train`. As a command-line
            option it also provides the initial config.
        dry_run: Whether to show what the training needs (memory, operations, time), and stop
            before its first step.
    """

    head: Callable[[int, int], Head]
    autoencoder_from: Path | None = None
    finetune: Path | None = None
    checkpoint: Path | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse fine-tuning without a model, or an output that is also an input."""
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
        if self.checkpoint is not None and self.autoencoder_from is not None:
            raise ValueError(
                "autoencoder_from must be left out with checkpoint, which holds an autoencoder; "
                f"got {self.autoencoder_from}."
            )
        for name, folder in (
            ("checkpoint", self.checkpoint),
            ("autoencoder_from", self.autoencoder_from),
        ):
            if folder is not None and folder.resolve() == self.output.resolve():
                raise ValueError(
                    f"output must be another folder than {name}, which is kept; got "
                    f"{self.output} for both."
                )
