"""A model to run commands on, and commands that only record what they would do."""

import shutil
import types
from pathlib import Path

import pytest
import torch
from sample_results import variant

import calmkit
from calmkit import config
from calmkit.accounting import Forecast, TrainingPlan
from calmkit.comparison import ComparisonResult
from calmkit.data import TextTokenizer, prepare_corpus
from calmkit.experiments.model_folder import load_checkpoint, save_checkpoint
from calmkit.experiments.run_record import RunRecord
from calmkit.models import CALM
from calmkit.reports import plots
from calmkit.saving import WEIGHTS_FILE


def result():
    """Any result at all: what it says is not looked at here."""
    return ComparisonResult(
        name="out", variants=(variant(),), seeds=(0,), budget="steps", corpus_name="text",
        corpus_digest="0" * 64, config="", hardware="none", versions={},
    )  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Prepared text, shared by all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(monkeypatch, tmp_path, cache):
    """In place of the work itself: records its arguments and returns a result."""
    calls = []

    def record(command, name, found):
        def call(*args, **kwargs):
            calls.append((name, args, kwargs))
            return found

        monkeypatch.setattr(f"calmkit.cli.{command}.{name}", call)

    record("compare", "compare", result())
    one = RunRecord("EnergyHead", 10, 5, variant().runs[0], "none")
    record("train", "train", one)
    record("evaluate", "evaluate_checkpoint", one)
    # A dry run of every training would take half of the time of these tests.
    plan = TrainingPlan(
        steps=1, batch_size=1, micro_batch=None, positions=2, chunk_size=1
    )  # fmt: skip
    forecasts = {"model": Forecast(plan, {"weights": 1.0}, 1.0)}
    monkeypatch.setattr("calmkit.cli.train.forecast_training", lambda *a, **k: forecasts)
    # See tests/comparison/test_comparing.py.
    monkeypatch.setattr("calmkit.cli.train.check_resumable", lambda *args, **inputs: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Drawing takes a second; tests/reports looks at the pictures.
    monkeypatch.setattr(plots, "draw_plots", lambda lines: [])
    return types.SimpleNamespace(calls=calls)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, cache):
    """An untrained small model."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--vocab_size", "300", "--hidden_size", "16", "--backbone.depth", "1",
               "--backbone.heads", "2", "--head.width", "16", "--cache_dir", f"{cache}/calmkit",
               "--positions", "20"]  # fmt: skip
    parsed = config.parse(options, command="calmkit train")
    experiment = parsed.experiment
    corpus = prepare_corpus(None, vocab_size=300, cache_dir=experiment.cache_dir)
    with torch.random.fork_rng():  # the same weights in any order of the tests
        torch.manual_seed(0)
        model = config.assemble(experiment, experiment.head)
    save_checkpoint(folder, model=model, tokenizer=corpus.tokenizer, config_text=parsed.text)
    return folder


@pytest.fixture
def trained(checkpoint, tmp_path):
    """A copy of it, in `model`."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    """The hub has the model as `owner/name`; as of any, only its weights are downloaded."""
    cached = tmp_path / "cached"
    cached.mkdir()
    shutil.copy(checkpoint / WEIGHTS_FILE, cached)

    def download(name, *, allow_patterns, revision):
        assert (name, allow_patterns, revision) == ("owner/name", [WEIGHTS_FILE], None)
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    yield
    assert [file.name for file in cached.iterdir()] == [WEIGHTS_FILE]  # a cache is not written


@pytest.fixture
def bare(trained):
    """A model that the published format can express, without the config of a run."""
    model = load_checkpoint(trained).model
    bare = CALM(
        autoencoder=model.autoencoder.autoencoder,
        input_encoder=model.input_encoder, backbone=model.backbone, head=model.head,
    )  # fmt: skip
    tokenizer = TextTokenizer.load(trained / "tokenizer.json")
    calmkit.save(bare, "bare", tokenizer=tokenizer)
    return bare
