"""What a run needs before it starts, and what can be wrong with it."""

from calmkit.config import TrainExperiment, check_parts
from calmkit.data import (
    Corpus,
    EvaluationRows,
    TrainingBatches,
    evaluation_rows,
    prepare_corpus,
)
from calmkit.training.scored_text import check_context

__all__ = ["check_rows", "prepare", "rows_of"]


def prepare(experiment: TrainExperiment) -> Corpus:
    """Try every constructor and read the text: what would fail later fails here.

    Raises:
        ValueError: If a part refuses its arguments, or the text cannot be read or is too short.
    """
    check_parts(experiment)
    corpus = prepare_corpus(
        experiment.data,
        vocab_size=experiment.vocab_size,
        validation_fraction=experiment.validation_fraction,
        seed=experiment.evaluation_seed,
        cache_dir=experiment.cache_dir,
    )
    TrainingBatches(
        corpus.train,
        chunk_size=experiment.chunk_size,
        positions=experiment.positions,
        batch_size=experiment.training.batch_size,
        seed=experiment.seed,
    )
    check_rows(experiment, corpus)
    return corpus


def check_rows(experiment: TrainExperiment, corpus: Corpus) -> None:
    """See that there is enough held-out text to be measured on.

    Raises:
        ValueError: If there is not.
    """
    rows = rows_of(experiment, corpus, experiment.evaluation.rows)
    check_context(rows, experiment.evaluation.min_context)


def rows_of(experiment: TrainExperiment, corpus: Corpus, count: int) -> EvaluationRows:
    """Held-out rows, the same for every seed of training."""
    return evaluation_rows(
        corpus.validation,
        chunk_size=experiment.chunk_size,
        positions=experiment.positions,
        max_rows=count,
        seed=experiment.evaluation_seed,
    )
