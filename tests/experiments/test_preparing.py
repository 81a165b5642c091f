"""What is wrong is found before anything is trained."""

import numpy as np
import pytest
from prepared_folders import write_prepared

from calmkit.config import parse
from calmkit.data import TextMixture, TextTokenizer
from calmkit.experiments.preparing import prepare, text_to_measure

GPT2 = {
    "backbone": "HuggingFaceBackbone",
    "backbone.init_args.model_type": "gpt2",
}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        # Rows of 40 chunks; two tokens more are drawn and read for 4-grams; the sample of 4
        # tokens and the clock, which lets 12 chunks be written, need less.
        ({"chunk_size": 4, "positions": 40}, 40),
        ({"chunk_size": 2, "positions": 40}, 40),
        ({"chunk_size": 1, "positions": 40}, 42),
        ({"chunk_size": 4, "positions": 12}, 4 + 12 - 1),
        ({"chunk_size": 4, "positions": 12, "sample_tokens": 65}, 4 + 17 - 1),
    ],
)
def test_too_few_learned_positions_are_named(options, needed, monkeypatch):
    pytest.importorskip("transformers")
    given = {**GPT2, "hidden_size": 16, "sample_tokens": 4, "evaluation.min_context": 4, **options}

    def experiment(positions):
        sizes = f'{{"n_layer": 1, "n_head": 2, "n_positions": {positions}}}'
        there = {**given, "backbone.init_args.settings": sizes}
        arguments = [f"--{name}={value}" for name, value in there.items()]
        return parse(arguments, command="calmkit train").experiment

    def reached(*arguments, **options):
        raise LookupError("text")

    monkeypatch.setattr("calmkit.experiments.preparing.prepare_corpus", reached)
    with pytest.raises(ValueError, match=rf"backbone must have at least {needed} positions.* has"):
        prepare(experiment(needed - 1))
    with pytest.raises(LookupError):
        prepare(experiment(needed))


@pytest.fixture(scope="module")
def tokenizers():
    """Two of one size that give other ids."""
    texts = (["ab ab ab ab"], ["cd cd cd cd"])
    return [TextTokenizer.train(text, vocab_size=258) for text in texts]


def prepared(folder, tokenizer, text="ab cd " * 60):
    ids = [np.array([0, *tokenizer.encode(text), 0])] * 4
    return write_prepared(
        folder, train=ids, validation=ids[1:], shard_tokens=100, vocab_size=258, end_id=0,
        tokenizer=tokenizer.to_json(),
    )  # fmt: skip


def experiment(*options):
    small = ("--evaluation.rows=4", "--positions=20", "--evaluation.min_context=2")
    return parse([*options, *small], command="calmkit train").experiment


def test_a_mixture_is_opened_and_checked(tmp_path, tokenizers):
    a = prepared(tmp_path / "a", tokenizers[0])
    b = prepared(tmp_path / "b", tokenizers[0], "ab " * 200)
    data = f"--data={{web: {{path: {a}, weight: 1}}, books: {{path: {b}, weight: 3}}}}"
    corpus = prepare(experiment(data))
    assert isinstance(corpus.train, TextMixture) and corpus.name == "web 25 %, books 75 %"
    with pytest.raises(
        ValueError, match=r"must be 258, that of the tokenizer of web, books; got 4"
    ):
        prepare(experiment(data, "--vocab_size=400"))
    with pytest.raises(
        ValueError, match=r"vocab_size must be 258, that of the tokenizer of a; got"
    ):
        prepare(experiment(f"--data={a}", "--vocab_size=400"))


def test_held_out_text_of_a_prepared_folder_is_measured_on(tmp_path, tokenizers):
    a = prepared(tmp_path / "a", tokenizers[0])
    b = prepared(tmp_path / "b", tokenizers[0], "ab " * 200)
    corpus = prepare(experiment(f"--data={a}", f"--evaluation_data={b}"))
    assert tokenizers[0].decode(corpus.validation.document(0).tolist()) == "ab " * 200
    assert corpus.validation.num_documents == 3
    assert "a, measured on b (SHA-256 " in corpus.name


def test_a_folder_with_other_ids_is_not_measured_on(tmp_path, tokenizers):
    folder = prepared(tmp_path / "text", tokenizers[0])
    store, digest = text_to_measure(folder, tokenizers[0])
    assert (store.num_documents, len(digest)) == (3, 64)
    with pytest.raises(
        ValueError, match=r"with the model's tokenizer; it was with a test's, whose"
    ):
        text_to_measure(folder, tokenizers[1])
