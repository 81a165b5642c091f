"""What a run needs before it starts, and what can be wrong with it."""

from dataclasses import replace
from pathlib import Path

from calmkit.config import TrainExperiment, check_parts, rehearse
from calmkit.data import (
    Corpus,
    TokenStore,
    TrainingBatches,
    digest_of,
    prepare_corpus,
    read_documents,
)
from calmkit.evaluation import positions_read, positions_written
from calmkit.models import LanguageModel

from .evaluation_plan import EvaluationPlan

__all__ = ["check_positions", "prepare", "with_other_text"]


def prepare(experiment: TrainExperiment) -> Corpus:
    """Try every constructor and read the text: what would fail later fails here.

    Raises:
        ValueError: If a part refuses its arguments or, not being calmkit's, cannot be used, the
            backbone has too few positions, or the text cannot be read or is too short.
    """
    model = check_parts(experiment)
    check_positions(model, experiment)
    rehearse(experiment, model)
    corpus = prepare_corpus(
        experiment.data,
        vocab_size=experiment.vocab_size,
        validation_fraction=experiment.validation_fraction,
        seed=experiment.evaluation_seed,
        cache_dir=experiment.cache_dir,
    )
    if experiment.evaluation_data is not None:
        try:
            corpus = with_other_text(corpus, experiment.evaluation_data)
        except ValueError as error:
            raise ValueError(f"evaluation_{error}") from None
    TrainingBatches(
        corpus.train,
        chunk_size=experiment.chunk_size,
        positions=experiment.positions,
        batch_size=experiment.training.batch_size,
        seed=experiment.seed,
    )
    EvaluationPlan.of_training(experiment, corpus).check()
    return corpus


def check_positions(model: LanguageModel, experiment: TrainExperiment | EvaluationPlan) -> None:
    """See that the backbone holds as many positions as will be read.

    Raises:
        ValueError: If it does not.
    """
    positions, sample, most = (
        experiment.positions,
        experiment.sample_tokens,
        model.backbone.max_positions,
    )
    needed = max(
        positions_read(positions, model.chunk_size), positions_written(model.chunk_size, sample)
    )
    if most is not None and needed > most:
        raise ValueError(
            f"backbone must have at least {needed} positions, to be measured on rows of positions "
            f"= {positions} and to write sample_tokens = {sample}; it has {most}, all of them "
            "learned. Give it more, or lower these."
        )


def with_other_text(corpus: Corpus, data: Path) -> Corpus:
    """The same training text, with all of another one held out.

    Raises:
        ValueError: If it cannot be read.
    """
    documents = read_documents(data)
    store = TokenStore.from_documents(documents, corpus.tokenizer)
    measured = f"measured on {data.name} (SHA-256 {digest_of(documents)[:12]})"
    return replace(corpus, validation=store, name=f"{corpus.name}, {measured}")
