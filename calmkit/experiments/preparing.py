"""Validate an experiment and prepare its text before a run starts."""

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
from .model_folder import tokenizer_of
from .run_progress import RunProgress, Silent, bytes_encoded

__all__ = ["check_positions", "prepare", "text_to_measure", "with_other_text"]

_COMPARED = 2000  # tokens on which two tokenizers are compared


def prepare(experiment: TrainExperiment, display: RunProgress | None = None) -> Corpus:
    """Try every constructor and read the text, so that a run fails early.

    Args:
        experiment: The experiment.
        display: Where the preparation of text that is not in the cache is shown; None: nowhere.

    Raises:
        ValueError: If a part refuses its arguments, a part from outside calmkit cannot be used,
            the backbone has too few positions, the text cannot be read or is too short, or was
            prepared with another tokenizer than the named autoencoder.
    """
    model = check_parts(experiment)
    check_positions(model, experiment)
    rehearse(experiment, model)
    corpus = _text_of(experiment, display or Silent())
    if experiment.autoencoder_from is not None:
        _check_tokenizer(
            experiment.autoencoder_from, experiment.vocab_size, corpus, display or Silent()
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


def _check_tokenizer(folder: Path, vocab_size: int, corpus: Corpus, display: RunProgress) -> None:
    """Refuse a named autoencoder whose token ids are not those of the text.

    Args:
        folder: Folder of the autoencoder.
        vocab_size: Number of its token ids.
        corpus: The text.
        display: Is told if the tokenizer of the autoencoder is not known.
    """
    if (found := corpus.tokenizer.vocab_size) != vocab_size:
        raise ValueError(
            f"data must have the {vocab_size} token ids of the autoencoder in {folder}; "
            f"{corpus.name} has {found}. Prepare it with the autoencoder's tokenizer: "
            f"calmkit prepare SOURCE --tokenizer {folder}"
        )
    try:
        tokenizer = tokenizer_of(folder)
    except ValueError:
        display.note(
            f"{folder} has no tokenizer: nothing shows that its autoencoder was trained on the "
            "token ids of this text."
        )
        return
    text = tokenizer.decode(corpus.validation.document(0)[:_COMPARED].tolist())
    if not _same_ids(tokenizer, corpus.tokenizer, text):
        raise ValueError(
            f"data must be prepared with the tokenizer of the autoencoder in {folder}; it has "
            f"another one. Prepare it with: calmkit prepare SOURCE --tokenizer {folder}"
        )


def _same_ids(first: TextTokenizer, second: TextTokenizer, text: str) -> bool:
    """Whether two tokenizers, perhaps of different classes, give a text the same ids."""
    kinds = [(one.vocab_size, one.end_id, one.encode(text)) for one in (first, second)]
    return kinds[0] == kinds[1]


def _text_of(experiment: TrainExperiment, display: RunProgress) -> Corpus:
    """The text of an experiment, read from prepared folders or prepared into the cache."""
    named = experiment.autoencoder_from is not None  # then its tokenizer is checked, not the size
    if not isinstance(experiment.data, dict):
        prepared = experiment.data is not None and is_prepared(experiment.data)
        return prepare_corpus(
            experiment.data,
            vocab_size=None if named and prepared else experiment.vocab_size,
            validation_fraction=experiment.validation_fraction,
            seed=experiment.evaluation_seed,
            cache_dir=experiment.cache_dir,
            tell=display.note,
            progress=bytes_encoded(display),
        )
    mixed = mixed_corpus({name: (t.path, t.weight) for name, t in experiment.data.items()})
    if not named and mixed.tokenizer.vocab_size != experiment.vocab_size:
        raise ValueError(
            f"vocab_size must be {mixed.tokenizer.vocab_size}, that of the tokenizer of "
            f"{', '.join(experiment.data)}; got {experiment.vocab_size}. Leave it out."
        )
    return mixed


def check_positions(model: LanguageModel, experiment: TrainExperiment | EvaluationPlan) -> None:
    """Check that the backbone has as many positions as the evaluation reads.

    Raises:
        ValueError: If it has fewer.
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
            f"backbone must have at least {needed} positions, for rows of positions = {positions} "
            f"and a sample text of sample_tokens = {sample}; it has {most} learned positions. "
            "Give it more, or lower these."
        )


def with_other_text(corpus: Corpus, data: Path) -> Corpus:
    """Replace the held-out text of a corpus by another text.

    Raises:
        ValueError: If that text cannot be read, or was prepared with another tokenizer.
    """
    store, digest = text_to_measure(data, corpus.tokenizer)
    measured = f"measured on {data.name} (SHA-256 {digest[:12]})"
    return replace(corpus, validation=store, name=f"{corpus.name}, {measured}")


def text_to_measure(data: Path | None, tokenizer: TextTokenizer) -> tuple[TokenStore, str]:
    """A whole text, or the held-out side of a prepared folder, and its digest.

    Args:
        data: A prepared folder, or a file or folder as in `read_documents`. None: the embedded
            text.
        tokenizer: The tokenizer of the model to evaluate.

    Raises:
        ValueError: If the text cannot be read, or was prepared with another tokenizer.
    """
    if data is None or not is_prepared(data):
        documents = read_documents(data)
        return TokenStore.from_documents(documents, tokenizer), digest_of(documents)
    store, manifest = TokenStore.open(data, "validation"), Manifest.read(data)
    prepared_with = TextTokenizer.load(data / TOKENIZER_FILE)
    text = prepared_with.decode(store.read(0, min(_COMPARED, store.num_tokens)).tolist())
    if not _same_ids(prepared_with, tokenizer, text):
        raise ValueError(
            f"data {data} must be prepared with the model's tokenizer; it was prepared with "
            f"{manifest.tokenizer.name}, which gives other ids. Prepare it with --tokenizer and "
            "the model's folder, or give its source."
        )
    return store, manifest.digest
