"""What a run needs before it starts, and what can be wrong with it."""

from dataclasses import replace
from pathlib import Path

from calmkit.config import TrainExperiment, check_parts, rehearse
from calmkit.data import (
    Corpus,
    EvaluationRows,
    TokenStore,
    TrainingBatches,
    digest_of,
    evaluation_rows,
    prepare_corpus,
    read_documents,
)
from calmkit.diagnostics import check_points, enough_rows
from calmkit.evaluation import check_context, positions_read, positions_written
from calmkit.models import LanguageModel

__all__ = ["check_rows", "prepare", "rows_of", "rows_to_diagnose", "with_other_text"]


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
    check_rows(experiment, corpus)
    return corpus


def check_positions(model: LanguageModel, experiment: TrainExperiment) -> None:
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


def rows_to_diagnose(experiment: TrainExperiment, corpus: Corpus) -> EvaluationRows:
    """Held-out rows for `diagnose`, as many as give enough points.

    Raises:
        ValueError: If fewer than two rows have a full chunk after the context.
    """
    count = enough_rows(experiment.positions, experiment.evaluation.rows)
    rows = rows_of(experiment, corpus, count)
    check_points(rows, experiment.evaluation.min_context)
    return rows
