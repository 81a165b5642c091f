"""Readouts of frozen states: each is trained and scored; only its own weights change."""

import argparse

import numpy as np
import pytest
import torch
from benchmark_runs import results, run_benchmark
from prepared_folders import write_prepared
from torch.testing import assert_close

from calmkit.backbones import TransformerBackbone
from calmkit.evaluation import (
    EvaluationSettings,
    evaluate_ngrams,
    evaluate_softmax,
    restored_share,
)
from calmkit.models import TokenLM
from calmkit.saving import save

OPTIONS = {
    "positions": 12, "rows": 4, "latent": 6, "width": 16, "autoencoder_steps": 60, "steps": 60,
    "rate": 0.02, "evaluation_rows": 8, "draws": 4, "context": 3, "seed": 0,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def float32():
    """As the command has it."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Text that counts modulo 7 and sometimes skips a number, and an untrained softmax."""
    folder = tmp_path_factory.mktemp("frozen")
    skips = np.random.default_rng(0).random((8, 60)) < 0.15
    documents = [np.r_[7, np.cumsum(1 + skip) % 7, 7] for skip in skips]
    write_prepared(
        folder / "text",
        train=documents[:5],
        validation=documents[5:],
        shard_tokens=10_000,
        vocab_size=8,
    )
    torch.manual_seed(0)
    model = TokenLM(8, backbone=TransformerBackbone(16, depth=1, heads=2))
    save(model, folder / "softmax")
    return folder / "softmax", folder / "text"


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # of a norm under autocast
def test_readouts_learn_and_leave_what_they_share(inputs, load):
    softmax, text = inputs
    module = load("frozen_states")
    study = module.Study(argparse.Namespace(softmax=softmax, data=text, **OPTIONS))
    shared = {**study.softmax.state_dict(), **study.autoencoder.state_dict()}
    before = {name: x.clone() for name, x in shared.items()}
    for name in set(module.NAMES) - set(module.TABLES):
        readout = study.new_readout(name)
        assert getattr(readout, "by_brier", False) == name.endswith("Brier")
        first = module.estimate(study.scores(readout))["value"]
        study.train(readout)
        assert module.estimate(study.scores(readout))["value"] > max(first, 20), name
    for name, x in shared.items():
        assert_close(x, before[name], rtol=0, atol=0)


def test_draws_of_a_table_have_its_score_with_and_without_the_autoencoder(inputs, load):
    softmax, text = inputs
    module = load("frozen_states")
    options = OPTIONS | {"draws": 400, "autoencoder_steps": 400}
    study = module.Study(argparse.Namespace(softmax=softmax, data=text, **options))
    assert restored_share(study.autoencoder, study.held_out.batch) == 1
    settings = EvaluationSettings(rows=8, draws=400, min_context=OPTIONS["context"])
    rows = study.held_out
    expected = evaluate_ngrams(study.trigrams, rows, settings, seed=0, highest_order=1, draws=400)
    expected = expected.brier[0].value
    assert 50 < expected < 90
    for name in module.TABLES:
        found = module.estimate(study.scores(study.new_readout(name)))["value"]
        assert abs(found - expected) < 1, name


def test_the_softmax_as_trained_has_the_score_of_an_evaluation(inputs, load):
    softmax, text = inputs
    module = load("frozen_states")
    study = module.Study(argparse.Namespace(softmax=softmax, data=text, **OPTIONS))
    readout = module.TokenReadout(torch.nn.Identity(), study.softmax.logits, by_brier=False)
    settings = EvaluationSettings(rows=8, draws=2, min_context=OPTIONS["context"])
    found = evaluate_softmax(study.softmax, study.held_out, settings, seed=0, highest_order=1)
    expected = found.brier.brier[0]
    scores = module.estimate(study.scores(readout))
    assert_close(scores["value"], expected.value, rtol=1e-5, atol=0)


def test_the_brier_loss_is_minus_the_score(load):
    readout = load("frozen_states").TokenReadout(
        torch.nn.Linear(4, 9), torch.nn.Identity(), by_brier=True
    )
    states, tokens = torch.randn(2, 5, 4), torch.randint(9, (2, 5))
    loss, score = readout.loss(states, tokens, None), readout.brier(states, tokens, None)
    assert_close(loss.double(), -score.mean(), rtol=1e-5, atol=1e-6)


def test_the_command_writes_scores_and_differences(inputs, tmp_path):
    softmax, text = inputs
    sizes = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in (OPTIONS | {"steps": 2}).items())
    written = run_benchmark(
        tmp_path, "frozen_states", sizes, "--softmax", softmax, "--data", text,
        "--readouts", "narrow", "energy",
    )  # fmt: skip
    found = results(written)
    trained = found["as trained"]["brier_1"]["value"]
    assert set(found["readouts"]) == {"narrow", "energy"} and 0 < found["restored"] <= 1
    for name, one in found["readouts"].items():
        assert name in written[0] and one["brier_1"]["standard_error"] > 0
        assert_close(one["difference"]["value"], one["brier_1"]["value"] - trained)
