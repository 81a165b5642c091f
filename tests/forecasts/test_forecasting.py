"""The stages that are forecast, and what the settings of a stage add to its memory."""

import importlib
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from token_stores import END, make_store
from train_configs import train

from calmkit.accounting import TrainingPlan
from calmkit.data import TokenStore
from calmkit.forecasts import forecast_training
from calmkit.training import TrainingSettings

SMALL = (
    "--vocab_size", str(END + 1), "--hidden_size", "16", "--positions", "8", "--head.width", "16",
    "--evaluation.min_context", "2",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture
def forecasts_of():
    """Forecasts of a small experiment with some attributes changed."""
    experiment = train(*SMALL).experiment
    corpus = types.SimpleNamespace(train=make_store([200] * 20))

    def forecast(*, devices=1, **changes):
        return forecast_training(replace(experiment, **changes), corpus, devices=devices)

    return experiment, forecast


def test_a_named_autoencoder_has_no_stage(forecasts_of):
    _, forecast = forecasts_of
    assert list(forecast()) == ["autoencoder", "model"]
    assert list(forecast(autoencoder_from=Path("base"))) == ["model"]


def test_the_plan_of_a_stage_is_that_of_its_settings(forecasts_of):
    _, forecast = forecasts_of
    stages = {
        "autoencoder_training": TrainingSettings(7, 12, 3, warmup_steps=1),
        "training": TrainingSettings(9, 20, 5, warmup_steps=1, ema=0.9),
    }
    found = forecast(**stages, devices=2, strategy="fsdp", precision="bf16-mixed")
    same = {"positions": 8, "chunk_size": 2, "devices": 2, "shards": True, "mixed": True}
    assert found["autoencoder"].plan == TrainingPlan(steps=7, batch_size=12, micro_batch=3, **same)
    assert found["model"].plan == TrainingPlan(
        steps=9, batch_size=20, micro_batch=5, averages=True, **same
    )


def test_averages_take_the_memory_of_the_weights_that_are_trained(forecasts_of):
    experiment, forecast = forecasts_of
    plain = forecast()["model"]
    averaged = forecast(training=replace(experiment.training, ema=0.9))["model"]
    assert plain.memory["averages"] == 0
    assert averaged.memory["averages"] == plain.memory["gradients"] > 0


@pytest.mark.parametrize("vocab", [600, 900])
def test_a_small_vocabulary_is_forecast_in_blocks_too(monkeypatch, vocab):
    """Some thousand targets have all their logits in memory, and more do not."""
    options = ("--model", "token_lm", "--chunk_size", "1", "--vocab_size", str(vocab),
               "--positions", "64", "--hidden_size", "16", "--backbone.depth", "1",
               "--backbone.heads", "2", "--training.batch_size", "192")  # fmt: skip
    experiment = train(*options).experiment
    tokens = np.arange(50_000) % (vocab - 1)
    # One document: of several in a row, a dry run takes each by itself.
    store = TokenStore(tokens, np.array([0, 50_000]), vocab, vocab - 1, num_characters=0)
    corpus = types.SimpleNamespace(train=store)
    found = forecast_training(experiment, corpus, devices=1)["model"]
    module = importlib.import_module("calmkit.accounting.forecast")
    monkeypatch.setattr(module, "_POSITIONS_AT_ONCE", 10**6)
    want = forecast_training(experiment, corpus, devices=1)["model"]
    assert found.total_memory == pytest.approx(want.total_memory, rel=0.02)
