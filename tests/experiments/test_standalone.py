import json
import math

import pytest
import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.cli.evaluate import _measure_and_write
from calmkit.data import TextTokenizer, read_documents
from calmkit.evaluation import EvaluationSettings
from calmkit.experiments.model_folder import load_checkpoint
from calmkit.experiments.standalone import (
    Measurement,
    Protocol,
    measure,
    text_to_score,
)
from calmkit.heads import EnergyHead
from calmkit.metrics import Estimate
from calmkit.models import CALM, ChunkEmbedding, TokenLM
from calmkit.saving import save

SMALL = Protocol(
    positions=12, settings=EvaluationSettings(rows=4, draws=3, min_context=4, bootstrap=20)
)


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(read_documents()[:20], vocab_size=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A model that `calmkit.save` wrote: without the config of a run."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = CALM(
        autoencoder=MLPAutoencoder(2, 300, 5, width=8),
        input_encoder=ChunkEmbedding(300, 2, 16),
        backbone=TransformerBackbone(16, depth=1, heads=2),
        head=EnergyHead(16, 5, width=8),
    )
    save(model, folder, tokenizer=tokenizer)
    return folder


@pytest.fixture
def checkpoint(folder):
    return load_checkpoint(folder)


def test_the_embedded_text_is_the_default(checkpoint, tokenizer):
    text = text_to_score(checkpoint, None, SMALL)
    assert text.name == "pydoc_data.topics"
    documents = read_documents()
    assert text.store.num_documents == len(documents)
    for number in (0, 7):
        got = text.store.document(number).tolist()
        assert got == [0, *tokenizer.encode(documents[number]), 0]
    rows = text.rows(4)
    assert rows.batch.tokens.shape == (4, 12, 2)


def test_any_text_can_be_given(checkpoint, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"Line {n} of a text of mine.\n\n" for n in range(200)))
    text = text_to_score(checkpoint, file, SMALL)
    assert text.name == "mine.txt"
    assert checkpoint.tokenizer.decode(text.store.document(0).tolist()).startswith("Line 0 of a")
    other = text_to_score(checkpoint, None, SMALL)
    assert text.digest != other.digest
    first, second = (measure(checkpoint.model, one) for one in (text, other))
    assert first.text == "mine.txt" and first.others != second.others


def test_too_little_text_is_refused(checkpoint, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("Not much.")
    with pytest.raises(ValueError, match="at least 2 rows must hold text after min_context = 4"):
        text_to_score(checkpoint, file, SMALL)


def test_the_protocol_is_what_is_measured(checkpoint):
    text = text_to_score(checkpoint, None, SMALL)
    found = measure(checkpoint.model, text)
    assert found == measure(checkpoint.model, text)
    assert found.protocol.startswith("3 draws after 4 to 11 chunks of 2 tokens of true text, in 4")
    assert (found.kind, found.digest, found.seed) == ("EnergyHead", text.digest, 0)
    assert found.parameters == sum(p.numel() for p in checkpoint.model.parameters())
    another = text_to_score(
        checkpoint, None, Protocol(positions=12, settings=SMALL.settings, seed=1)
    )
    assert not torch.equal(another.rows(4).batch.tokens, text.rows(4).batch.tokens)
    assert measure(checkpoint.model, another).others != found.others


def test_restored_tokens_are_counted_one_by_one(checkpoint, tmp_path, monkeypatch):
    """Of an autoencoder that gives back end tokens only; those that fill a row do not count."""
    file = tmp_path / "short.jsonl"
    file.write_text("".join(f'{{"text": "Some words, {n}."}}\n' for n in range(9)))
    text = text_to_score(checkpoint, file, SMALL)
    rows = text.rows(4)
    hits = total = 0
    for row, real in zip(rows.batch.tokens.tolist(), rows.batch.real.tolist(), strict=True):
        for chunk, is_text in zip(row, real, strict=True):
            for token, counts in zip(chunk, is_text, strict=True):
                hits += token == 0 and counts
                total += counts
    assert 0 < hits < total < rows.batch.tokens.numel()

    def ends(self, latents):
        return torch.zeros(*latents.shape[:-1], self.chunk_size, dtype=torch.long)

    monkeypatch.setattr(type(checkpoint.model.autoencoder), "decode_tokens", ends)
    assert math.isclose(measure(checkpoint.model, text).restored, hits / total)


def test_a_softmax_model_is_measured_by_its_cross_entropy(tmp_path, tokenizer):
    torch.manual_seed(0)
    backbone = TransformerBackbone(16, depth=1, heads=2)
    save(TokenLM(300, backbone=backbone), tmp_path, tokenizer=tokenizer)
    checkpoint = load_checkpoint(tmp_path)
    found = measure(checkpoint.model, text_to_score(checkpoint, None, SMALL))
    assert found.kind == "TokenLM" and found.restored is None
    # Untrained, it is not far from the log of 300 tokens.
    assert abs(found.others["cross entropy"].value - math.log(300)) < 2


def test_another_kind_of_model_is_refused(checkpoint):
    text = text_to_score(checkpoint, None, SMALL)
    with pytest.raises(
        ValueError, match="model must be a CALM or a TokenLM to be measured; got L"
    ):
        measure(torch.nn.Linear(2, 2), text)


def test_numbers_are_written_and_told(checkpoint, tmp_path):
    text = text_to_score(checkpoint, None, SMALL)
    (said,) = _measure_and_write(checkpoint, text, tmp_path, diagnostics=False)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    want = measure(checkpoint.model, text)
    assert found["others"]["energy score"]["value"] == want.others["energy score"].value
    assert found["protocol"] == want.protocol and found["digest"] == text.digest
    assert f"energy score  {want.others['energy score'].value:.2f}" in said
    assert want.protocol in said and "pydoc_data.topics" in said
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_diagnostics_come_after_the_scores(checkpoint, tmp_path):
    text = text_to_score(checkpoint, None, SMALL)
    scores, diagnosis = _measure_and_write(checkpoint, text, tmp_path, diagnostics=True)
    assert "BrierLM" in scores and "conditioning" in diagnosis
    assert (tmp_path / "diagnostics.json").is_file()


def test_an_undefined_brier_lm_is_explained():
    scores = tuple(Estimate(value, 0.5) for value in (3.0, -1.0, 2.0, 0.0))
    found = Measurement(
        kind="EnergyHead", parameters=1500, brier_lm=0.0, brier=scores, not_positive=(2, 4),
        others={"energy score": Estimate(1.5, 0.25)}, restored=0.5, protocol="p", text="t",
        digest="d" * 64, seed=0,
    )  # fmt: skip
    said = found.to_text()
    assert "not so for n = 2, 4" in said and "Brier-2       -1.00 ± 0.50 %" in said
    assert "energy score  1.50 ± 0.25  (lower is better)" in said and "50.00 %" in said


def test_options_that_are_not_given_are_the_defaults():
    nothing = dict.fromkeys(("rows", "draws", "min_context"))
    assert Protocol.of_options(positions=None, **nothing) == Protocol()
    some = Protocol.of_options(positions=9, rows=3, draws=None, min_context=2)
    assert (some.positions, some.settings.rows, some.settings.min_context) == (9, 3, 2)
    assert some.settings.draws == EvaluationSettings().draws
    with pytest.raises(ValueError, match="rows must be at least 2; got 1"):
        Protocol.of_options(positions=9, rows=1)
