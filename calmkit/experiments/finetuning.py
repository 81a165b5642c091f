"""Fine-tune a saved model on prompt and response pairs, and save the result in a new folder.

The autoencoder and the tokenizer are kept. The input encoder, backbone and head are trained, with
a loss on the response chunks only. The model is scored on held-out pairs before and after.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from calmkit.accounting import Forecast
from calmkit.cluster import end_exchange
from calmkit.config import TrainExperiment, assemble
from calmkit.data import TextTokenizer
from calmkit.devices import uncompiled
from calmkit.files import file_digest, replace_file
from calmkit.json_converter import to_json
from calmkit.models import LanguageModel
from calmkit.pairs import PairBatches, PairStore, encode_pairs, read_pairs
from calmkit.saving import WEIGHTS_FILE
from calmkit.training import fit, out_of_memory_in, step_generator

from .hardware import at_speed, new_fabric
from .model_folder import check_config_fits, load_checkpoint, save_checkpoint
from .pair_scores import FinetuningResult, PairScores, reproduced
from .resuming import CHECKPOINTS, begin
from .run_progress import RunProgress
from .trainer import model_objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["PreparedPairs", "finetune", "prepare_finetuning"]


@dataclass(frozen=True, eq=False)
class PreparedPairs:
    """A model and pairs, ready for training.

    Attributes:
        model: The model with the weights of the checkpoint.
        tokenizer: The tokenizer of the checkpoint.
        train: Batches of the training pairs.
        held_out: Batches of the held-out pairs.
        name: Name of the file of pairs.
        digest: SHA-256 of the file.
        base: SHA-256 of the checkpoint's weights.
    """

    model: LanguageModel
    tokenizer: TextTokenizer
    train: PairBatches
    held_out: PairBatches
    name: str
    digest: str
    base: str

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of the training's inputs."""
        return {"pairs": self.digest, "checkpoint": self.base}


def prepare_finetuning(
    experiment: TrainExperiment, *, trust: Collection[str] = ()
) -> PreparedPairs:
    """Load the model and batch the pairs; all errors in the inputs are detected here.

    Args:
        experiment: An experiment with `finetune` and `checkpoint` set.
        trust: Packages outside calmkit that the model's parts come from.

    Raises:
        ValueError: If the checkpoint or the pairs cannot be read, the config builds a model of
            other sizes than the checkpoint's, or a pair does not fit in a row.
    """
    if experiment.finetune is None or experiment.checkpoint is None:
        raise ValueError("experiment must set finetune and checkpoint; one is None.")
    saved = load_checkpoint(experiment.checkpoint, trust=trust)
    check_config_fits(saved, experiment)
    with torch.random.fork_rng(devices=[]):
        model = assemble(experiment, experiment.head)
    try:
        model.load_state_dict(saved.model.state_dict())
    except RuntimeError as error:
        first = " ".join(str(error).split()[:40])
        raise ValueError(
            f"the config must build a model of the sizes of checkpoint {experiment.checkpoint}; "
            f"it does not. {first}"
        ) from None
    pairs = encode_pairs(read_pairs(experiment.finetune), saved.tokenizer)
    train, held_out = pairs.split(
        validation_fraction=experiment.validation_fraction, seed=experiment.seed
    )

    def batches(chosen: PairStore, batch_size: int) -> PairBatches:
        return PairBatches(
            chosen,
            chunk_size=experiment.chunk_size,
            positions=experiment.positions,
            batch_size=batch_size,
            seed=experiment.seed,
            end_id=saved.tokenizer.end_id,
        )

    rows = batches(held_out, 1).rows_per_epoch
    return PreparedPairs(
        model=model,
        tokenizer=saved.tokenizer,
        train=batches(train, experiment.training.batch_size),
        held_out=batches(held_out, min(rows, experiment.validation_rows)),
        name=experiment.finetune.name,
        digest=file_digest(experiment.finetune),
        base=file_digest(experiment.checkpoint / WEIGHTS_FILE),
    )


def finetune(
    experiment: TrainExperiment,
    prepared: PreparedPairs,
    *,
    config_text: str,
    display: RunProgress,
    fabric: "Fabric | None" = None,
    forecasts: Mapping[str, Forecast] | None = None,
) -> FinetuningResult | None:
    """Train the model on the pairs, or resume the training in the output folder, and save it.

    Args:
        experiment: The experiment.
        prepared: The inputs, from `prepare_finetuning`.
        config_text: The effective config, saved with the model.
        display: Receives the progress.
        fabric: The devices, launched; one device if None.
        forecasts: The result of `forecast_finetuning`, for the share of the devices' peak.

    Returns:
        The result, in the first process. The others end with the training: None.
    """
    fabric = fabric or new_fabric(experiment.accelerator, experiment.precision)
    if fabric.is_global_zero:
        begin(experiment.output, config_text, **prepared.inputs)
    checkpoints = experiment.output / CHECKPOINTS
    model = prepared.model.to(fabric.device)
    held_out = prepared.held_out.batch_at(0).to(fabric.device)

    def loss(module: nn.Module) -> Mapping[str, float]:
        generator = step_generator(experiment.seed, 0, device=fabric.device)
        with torch.no_grad(), fabric.autocast():
            return {"loss": float(model.loss(held_out, generator).total)}

    def scores() -> PairScores:
        pairs = prepared.held_out.pairs
        few = [pairs[i] for i in range(min(len(pairs), experiment.evaluation.rows))]
        model.eval()
        with out_of_memory_in("finetune", during="evaluation"):
            share = reproduced(model, few, end_id=prepared.tokenizer.end_id, seed=experiment.seed)
            return PairScores(loss(model)["loss"], share)

    before = scores() if fabric.is_global_zero else None
    with out_of_memory_in("finetune"), at_speed(model, fabric, compiled=experiment.compile):
        training = fit(
            model,
            model_objective,
            prepared.train.batch_at,
            settings=experiment.training,
            seed=experiment.seed,
            optimizer=experiment.optimizer,
            validate=uncompiled(loss),
            fabric=fabric,
            directory=checkpoints / "model",
            loggers=[experiment.logger(experiment.output / "logs" / "finetune")],
            progress=display.track("finetune"),
            flops_per_step=forecasts["finetune"].flops_per_step if forecasts else None,
        )
    end_exchange(fabric)
    if before is None:
        return None
    save_checkpoint(
        experiment.output,
        training=training,
        model=model,
        tokenizer=prepared.tokenizer,
        config_text=config_text,
    )
    with training.averaged():
        after = scores()
    result = FinetuningResult(
        name=prepared.name,
        digest=prepared.digest,
        pairs=len(prepared.train.pairs),
        held_out_pairs=len(prepared.held_out.pairs),
        seed=experiment.seed,
        before=before,
        after=after,
        ema=experiment.training.ema,
        training_seconds=training.seconds,
    )
    replace_file(experiment.output / "finetuning.json", to_json(result) + "\n")
    return result
