"""What a run needs before it starts, and what can be wrong with it."""

from dataclasses import replace
from pathlib import Path

from calmkit.config import TrainExperiment, check_parts, rehearse
from calmkit.data import (
    TOKENIZER_FILE,
    Corpus,
    Manifest,
    TextTokenizer,
    TokenStore,
    TrainingBatches,
    digest_of,
    is_prepared,
    mixed_corpus,
    prepare_corpus,
    read_documents,
)
from calmkit.evaluation import positions_read, positions_written
from calmkit.models import LanguageModel

from .evaluation_plan import EvaluationPlan

__all__ = ["check_positions", "prepare", "text_to_measure", "with_other_text"]

_COMPARED = 2000  # tokens by which two tokenizers are compared


def prepare(experiment: TrainExperiment) -> Corpus:
    """Try every constructor and read the text: what would fail later fails here.

    Raises:
        ValueError: If a part refuses its arguments or, not being calmkit's, cannot be used, the
            backbone has too few positions, or the text cannot be read or is too short.
    """
    model = check_parts(experiment)
    check_positions(model, experiment)
    rehearse(experiment, model)
    corpus = _text_of(experiment)
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


def _text_of(experiment: TrainExperiment) -> Corpus:
    """The text of an experiment, from prepared folders or prepared into the cache."""
    if not isinstance(experiment.data, dict):
        return prepare_corpus(
            experiment.data,
            vocab_size=experiment.vocab_size,
            validation_fraction=experiment.validation_fraction,
            seed=experiment.evaluation_seed,
            cache_dir=experiment.cache_dir,
        )
    mixed = mixed_corpus({name: (t.path, t.weight) for name, t in experiment.data.items()})
    if mixed.tokenizer.vocab_size != experiment.vocab_size:
        raise ValueError(
            f"vocab_size must be {mixed.tokenizer.vocab_size}, that of the tokenizer of "
            f"{', '.join(experiment.data)}; got {experiment.vocab_size}. Leave it out."
        )
    return mixed


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
        ValueError: If it cannot be read, or was prepared with another tokenizer.
    """
    store, digest = text_to_measure(data, corpus.tokenizer)
    measured = f"measured on {data.name} (SHA-256 {digest[:12]})"
    return replace(corpus, validation=store, name=f"{corpus.name}, {measured}")


def text_to_measure(data: Path | None, tokenizer: TextTokenizer) -> tuple[TokenStore, str]:
    """All of a text, or what a prepared folder holds out; and its digest.

    Args:
        data: A prepared folder, or a file or folder as of `read_documents`. None: the embedded
            text.
        tokenizer: That of the model to be measured.

    Raises:
        ValueError: If the text cannot be read, or was prepared with another tokenizer.
    """
    if data is None or not is_prepared(data):
        documents = read_documents(data)
        return TokenStore.from_documents(documents, tokenizer), digest_of(documents)
    store, manifest = TokenStore.open(data, "validation"), Manifest.read(data)
    theirs = TextTokenizer.load(data / TOKENIZER_FILE)
    # The model's may be of another class; what counts is that both give the same ids.
    text = theirs.decode(store.read(0, min(_COMPARED, store.num_tokens)).tolist())
    kinds = [(one.vocab_size, one.end_id, one.encode(text)) for one in (theirs, tokenizer)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"data {data} must be prepared with the model's tokenizer; it was prepared with "
            f"{manifest.tokenizer.name}, which gives other ids. Prepare it with --tokenizer and "
            "the model's folder, or give its source."
        )
    return store, manifest.digest
