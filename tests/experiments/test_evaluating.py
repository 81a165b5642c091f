"""A saved model without the config of a training: text and protocol are options."""

import math
from dataclasses import replace

import pytest
import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.data import Preparation, TextTokenizer, TokenStore, prepare_folder, read_documents
from calmkit.evaluation import EvaluationSettings, evaluate
from calmkit.experiments.evaluating import evaluate_checkpoint, plan_evaluation
from calmkit.experiments.measuring import measure
from calmkit.experiments.model_folder import load_checkpoint
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding, TokenLM
from calmkit.saving import save
from calmkit.text import find_sources

SMALL = {"positions": 12, "rows": 4, "draws": 3, "min_context": 4, "bootstrap": 20}


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


def small_plan(checkpoint, **options):
    """The plan of an evaluation that writes a few tokens."""
    return replace(plan_evaluation(checkpoint, **options, **SMALL), sample_tokens=4)


def test_the_embedded_text_is_the_default(checkpoint, tokenizer):
    plan = plan_evaluation(checkpoint, **SMALL)
    assert plan.text_name == "pydoc_data.topics"
    documents = read_documents()
    assert plan.text.num_documents == len(documents)
    for number in (0, 7):
        got = plan.text.document(number).tolist()
        assert got == [0, *tokenizer.encode(documents[number]), 0]
    assert plan.rows.batch.tokens.shape == (4, 12, 2)


def test_any_text_can_be_given(checkpoint, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"Line {n} of a text of mine.\n\n" for n in range(200)))
    plan = small_plan(checkpoint, data=file)
    assert plan.text_name == "mine.txt"
    assert checkpoint.tokenizer.decode(plan.text.document(0).tolist()).startswith("Line 0 of a")
    other = small_plan(checkpoint)
    assert plan.text_digest != other.text_digest
    first, second = (measure(checkpoint.model, one) for one in (plan, other))
    assert first.energy_score != second.energy_score


def prepared(tmp_path, folder, tokenizer):
    """A prepared folder of some lines, each of its own."""
    lines = [f'{{"text": "Line {n}, of a text of mine, about {n % 7}."}}' for n in range(300)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    sources = find_sources([tmp_path / "lines.jsonl"])
    preparation = Preparation(sources=sources, tokenizer=str(tokenizer))
    return prepare_folder(preparation, tmp_path / folder)


def test_of_a_prepared_folder_it_is_measured_on_what_is_held_out(checkpoint, folder, tmp_path):
    manifest = prepared(tmp_path, "mine", folder)
    plan = plan_evaluation(checkpoint, data=tmp_path / "mine", **SMALL)
    held_out = TokenStore.open(tmp_path / "mine", "validation")
    assert 0 < held_out.num_documents == manifest.validation.documents < 100
    assert plan.text.num_documents == held_out.num_documents
    assert plan.text.document(3).tolist() == held_out.document(3).tolist()
    assert (plan.text_name, plan.text_digest) == ("mine", manifest.digest)


def test_a_folder_of_other_ids_is_refused(checkpoint, tmp_path):
    prepared(tmp_path, "mine", "train:300")
    with pytest.raises(ValueError, match=r"prepared with the model's tokenizer; .* train:300"):
        plan_evaluation(checkpoint, data=tmp_path / "mine", **SMALL)


def test_too_little_text_is_refused(checkpoint, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("Not much.")
    with pytest.raises(ValueError, match="at least 2 rows must hold text after min_context = 4"):
        plan_evaluation(checkpoint, data=file, **SMALL)


def test_the_protocol_is_what_is_measured(checkpoint):
    plan = small_plan(checkpoint)
    record = evaluate_checkpoint(checkpoint, plan)
    found = record.result
    assert replace(measure(checkpoint.model, plan), microseconds_per_token=None) == replace(
        found, microseconds_per_token=None
    )
    assert found.protocol.startswith("3 draws after 4 to 11 chunks of 2 tokens of true text, in 4")
    want = evaluate(checkpoint.model, plan.rows, plan.settings, seed=0)
    assert (found.brier, found.energy_score) == (want.brier.brier, want.energy_score)
    assert record.head == "calmkit.heads.energy.EnergyHead"
    assert record.metrics() == {"BrierLM": 0.0, "energy score": want.energy_score.value}
    another = replace(plan, seed=1)
    assert not torch.equal(another.rows.batch.tokens, plan.rows.batch.tokens)
    assert measure(checkpoint.model, another).energy_score != found.energy_score


def test_nothing_is_said_of_a_training_that_is_not_known(checkpoint):
    found = measure(checkpoint.model, small_plan(checkpoint))
    unknown = (
        "seed", "steps", "trained_tokens", "training_flops", "training_seconds", "baselines",
        "cross_entropy",
    )  # fmt: skip
    assert [getattr(found, name) for name in unknown] == [None] * len(unknown)
    assert found.sampling_flops > 0 and found.samples[0].texts[0].startswith("[")
    assert {sample.known_words for sample in found.samples} == {None}


def test_restored_tokens_are_counted_one_by_one(checkpoint, tmp_path, monkeypatch):
    """Of an autoencoder that gives back end tokens only; those that fill a row do not count."""
    file = tmp_path / "short.jsonl"
    file.write_text("".join(f'{{"text": "Some words, {n}."}}\n' for n in range(9)))
    plan = small_plan(checkpoint, data=file)
    rows = plan.rows
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
    found = measure(checkpoint.model, plan)
    assert math.isclose(found.autoencoder_accuracy, hits / total)


def test_a_softmax_model_is_measured_by_its_cross_entropy(tmp_path, tokenizer):
    torch.manual_seed(0)
    backbone = TransformerBackbone(16, depth=1, heads=2)
    save(TokenLM(300, backbone=backbone), tmp_path, tokenizer=tokenizer)
    checkpoint = load_checkpoint(tmp_path)
    record = evaluate_checkpoint(checkpoint, small_plan(checkpoint))
    assert record.head.endswith(".TokenLM")
    found = record.result
    assert found.energy_score is None and found.autoencoder_accuracy is None
    # Untrained, it is not far from the log of 300 tokens.
    assert abs(found.cross_entropy.value - math.log(300)) < 2


def test_another_kind_of_model_is_refused(checkpoint):
    plan = plan_evaluation(checkpoint, **SMALL)
    with pytest.raises(
        ValueError, match="model must be a CALM or a TokenLM to be measured; got L"
    ):
        measure(torch.nn.Linear(2, 2), plan)


def test_options_that_are_not_given_are_the_defaults(checkpoint):
    plan = plan_evaluation(checkpoint, rows=None, draws=None)
    assert (plan.positions, plan.settings, plan.seed) == (64, EvaluationSettings(), 0)
    some = plan_evaluation(checkpoint, positions=9, rows=3, draws=None, min_context=2)
    assert (some.positions, some.settings.rows, some.settings.min_context) == (9, 3, 2)
    assert some.settings.draws == EvaluationSettings().draws
    with pytest.raises(ValueError, match="rows must be at least 2; got 1"):
        plan_evaluation(checkpoint, positions=9, rows=1)


def test_a_backbone_with_too_few_positions_is_refused(checkpoint, monkeypatch):
    """Before anything is computed, as for a model that is trained."""
    few = property(lambda backbone: 15)
    monkeypatch.setattr(type(checkpoint.model.backbone), "max_positions", few)
    with pytest.raises(ValueError, match=r"backbone must have at least 67 positions.* it has 15"):
        plan_evaluation(checkpoint, **SMALL)
