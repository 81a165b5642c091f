"""When the softmax is scored in chunks, with stored results and models that cost nothing."""

import contextlib
import dataclasses
import types

import pytest
import sample_results as samples
import torch

from calmkit.comparison import softmax_scoring as scoring
from calmkit.experiments.run_record import RunRecord
from calmkit.metrics import Estimate

NAME = "softmax, in chunks"
SCORE = (Estimate(3.0, 0.1),) * 4
VARIANTS = ("two", "twin", "four", "one", "other", "elsewhere", "softmax")


@pytest.fixture
def stored(monkeypatch):
    """Records by variant; the softmax's chunks are counted as they are scored."""
    found = {"scored": [], "averaged": False}

    @contextlib.contextmanager
    def averaged():
        found["averaged"] = True
        yield
        found["averaged"] = False

    def trained(run, display):
        found["scored"].append(run.variant)
        return None, "model", types.SimpleNamespace(averaged=averaged)

    def scores(*_, **__):
        assert found["averaged"] and torch.get_num_threads() == 3
        return types.SimpleNamespace(brier=SCORE)

    def plan_of(experiment, corpus):
        return types.SimpleNamespace(
            chunk_size=experiment.chunk_size, positions=8, settings=None, seed=0, rows=None,
            text_digest=corpus.digest,
        )  # fmt: skip

    plan = types.SimpleNamespace(of_training=plan_of)
    monkeypatch.setattr(scoring, "EvaluationPlan", plan)
    monkeypatch.setattr(scoring, "prepare", lambda e: types.SimpleNamespace(digest=e.digest))
    monkeypatch.setattr(scoring, "read_record", lambda run: found.get(run.variant))
    monkeypatch.setattr(scoring, "keep", lambda run, record: found.update({run.variant: record}))
    monkeypatch.setattr(scoring, "trained_model", trained)
    monkeypatch.setattr(scoring, "evaluate_softmax_chunks", scores)
    return found


def run(variant, folder, chunk_size=2, *, vocab_size=300, digest="text"):
    experiment = types.SimpleNamespace(chunk_size=chunk_size, vocab_size=vocab_size, digest=digest)
    return types.SimpleNamespace(
        variant=variant, training_folder=folder, experiment=lambda: experiment
    )


def record(**baselines):
    result = dataclasses.replace(samples.run(), baselines={"unigram": SCORE, **baselines})
    return RunRecord("EnergyHead", 10, 5, result, "none")


def names(stored, variant):
    return list(stored[variant].result.baselines)


def score(runs):
    told = samples.Told()
    scoring.score_softmax_chunks(runs, threads=3, display=told)
    return told.lines


def test_it_is_a_baseline_of_variants_of_its_text_that_draw_several_tokens(stored, tmp_path):
    stored |= {name: record() for name in VARIANTS}
    runs = [
        run("two", tmp_path),
        run("twin", tmp_path),
        run("four", tmp_path, 4),
        run("one", tmp_path, 1),
        run("other", tmp_path, vocab_size=400),
        run("elsewhere", tmp_path, digest="another"),
        run("failed", tmp_path),
        run("softmax", tmp_path, 1),
    ]
    assert score(runs) == [f"softmax: scoring its chunks of {k} tokens ..." for k in (2, 4)]
    for variant in ("two", "twin", "four"):
        assert names(stored, variant) == ["unigram", NAME]
    for variant in ("one", "other", "elsewhere", "softmax"):
        assert names(stored, variant) == ["unigram"]
    # A finished comparison does not load the softmax again.
    assert score(runs) == [] and stored["scored"] == ["softmax"]


def test_the_softmax_is_not_trained_again_for_its_chunks(stored, tmp_path):
    stored |= {name: record() for name in ("two", "one", "softmax")}
    gone = tmp_path / "gone"
    softmax = run("softmax", gone, 1)
    assert score([run("one", tmp_path, 1), softmax]) == []
    told = score([run("two", tmp_path), softmax])
    assert told == [f"softmax: not scored in chunks, since {gone} is gone."]
    assert stored["scored"] == []


def test_a_failure_is_told_and_leaves_the_scores_of_the_variant(stored, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such states")

    stored |= {name: record() for name in ("two", "softmax")}
    monkeypatch.setattr(scoring, "evaluate_softmax_chunks", fails)
    told = score([run("two", tmp_path), run("softmax", tmp_path, 1)])
    assert told[-1] == "softmax: not scored in chunks. RuntimeError: no such states"
    assert names(stored, "two") == ["unigram"]


def test_scores_of_an_earlier_softmax_are_forgotten(stored, tmp_path):
    stored |= {"two": record(**{NAME: SCORE}), "one": record()}
    scoring.forget_softmax_chunks([run(name, tmp_path) for name in ("two", "one", "failed")])
    assert names(stored, "two") == names(stored, "one") == ["unigram"]
