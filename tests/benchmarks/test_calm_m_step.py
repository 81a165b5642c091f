"""The command that measures the step of CALM-M, with a model that takes a moment."""

import statistics

import pytest
from benchmark_runs import results, run_benchmark


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    small = (
        "--warm 2 --measured 3 --kernels 4 --vocab_size 50 --hidden_size 16 --latent_size 8 "
        "--positions 64 --autoencoder.width 16 --backbone.depth 1 --backbone.heads 2 "
        "--backbone.ff_size 32 --head.width 16 --head.depth 1 --evaluation.min_context 2 "
        "--compile false --training.batch_size 4 --training.micro_batch 2"
    )
    return run_benchmark(tmp_path_factory.mktemp("benchmark"), "calm_m_step", small)


@pytest.mark.parametrize("kind", ["packed", "one document"])
def test_speed_is_tokens_over_time(written, kind):
    found = results(written)[kind]
    assert len(found["seconds"]) == 3
    tokens = found["tokens_per_second"] * statistics.median(found["seconds"])
    assert tokens == pytest.approx(4 * 64 * 4)
    assert f"{kind}: {found['tokens_per_second']:,.0f} tokens/s" in written[0]


def test_documents_that_see_less_take_fewer_operations(written):
    found = results(written)
    flops = {
        kind: found[kind]["tflops"] * statistics.median(found[kind]["seconds"])
        for kind in ("packed", "one document")
    }
    assert 0 < flops["packed"] < flops["one document"] < 1.5 * flops["packed"]


@pytest.mark.parametrize("kind", ["packed", "one document"])
def test_the_profile_lists_what_takes_most(written, kind):
    profile = results(written)[kind]["profile"]
    times = [one["milliseconds"] for one in profile["largest"]]
    assert times == sorted(times, reverse=True) and len(times) == 4
    assert sum(times) < profile["milliseconds"]
    shares = [one["share"] * profile["milliseconds"] for one in profile["largest"]]
    assert shares == pytest.approx(times)
    assert any(one["name"].startswith("aten::") for one in profile["largest"])
