"""Several chunk sizes in one model: what they share, what a row trains, and what is reported."""

import json
import math
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from prepared_folders import write_prepared
from torch import nn
from torch.testing import assert_close

from calmkit.chunking import ChunkBatch
from calmkit.data import TextTokenizer
from calmkit.metrics import DocumentScores
from calmkit.models import ChunkEmbedding

SIZES = (
    "--sizes 1 2 --steps 6 --tokens 16 --rows 3 --latent 4 --hidden 8 --depth 1 --heads 2 "
    "--head-depth 1 --autoencoder-steps 4 --evaluation-rows 12 --draws 2 --context 4 --seeds 3 5"
)


@pytest.fixture
def benchmark(load):
    return load("variable_k")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A prepared folder of random tokens."""
    numbers = np.random.default_rng(0)
    documents = [np.r_[0, numbers.integers(1, 257, size=62), 0] for _ in range(14)]
    folder = tmp_path_factory.mktemp("text") / "prepared"
    write_prepared(
        folder,
        train=documents[:5],
        validation=documents[5:],
        shard_tokens=10_000,
        vocab_size=257,
        end_id=0,
        tokenizer=TextTokenizer.train(["some text"], vocab_size=257).to_json(),
    )
    return folder


@pytest.fixture
def batch():
    """Two rows of two chunks; the first begins with padding and holds two documents."""
    tokens = torch.arange(16).view(2, 2, 4)
    return ChunkBatch(tokens, tokens > 1, lengths=((1, 1), (2,)))


def test_rows_keep_their_text_in_shorter_chunks(benchmark, batch):
    found = benchmark.regrouped(batch, 2)
    assert found.tokens.tolist()[0] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found.real.tolist()[0] == [[False, False], [True, True], [True, True], [True, True]]
    assert found.lengths == ((2, 2), (4,))
    assert found.predictable().tolist() == [[False, True, False, True], [False, True, True, True]]


def test_a_short_chunk_is_read_as_a_padded_one_with_a_mark(benchmark):
    embedding, mark = ChunkEmbedding(20, 4, 8).double(), nn.Parameter(torch.randn(8).double())
    short = benchmark.MarkedEmbedding(embedding, mark, 2)
    vectors = short(torch.tensor([[5, 6]]), torch.tensor([[False, True]]))
    alone = embedding(torch.tensor([[9, 9, 9, 6]]), torch.tensor([[False, False, False, True]]))
    assert_close(vectors, alone + mark)


def test_each_row_trains_one_size_and_rows_weigh_the_same(benchmark, batch):
    seen = []

    def model(size):
        def loss(part, generator):
            seen.append(part)
            return SimpleNamespace(total=torch.tensor(10.0**size))

        module = nn.Module()
        module.chunk_size, module.loss = size, loss
        return module

    several = benchmark.SeveralSizes([model(1), model(2), model(4)])
    rows = ChunkBatch(batch.tokens[[0, 1] * 4], batch.real[[0, 1] * 4], batch.lengths * 4)
    losses = {several.loss(rows, torch.Generator().manual_seed(n)).item() for n in range(3)}
    assert len(losses) > 1  # the sizes are drawn anew
    seen.clear()
    total = several.loss(rows, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([part.tokens.flatten() for part in seen]), rows.tokens.flatten())
    drawn = [part.tokens.shape[2] for part in seen for _ in part.lengths]
    assert len(set(drawn)) > 1
    assert_close(total.item(), statistics.mean(10.0**size for size in drawn))


def test_means_over_seeds_have_both_errors(benchmark):
    numbers = torch.Generator().manual_seed(0)
    counts = torch.tensor([[2.0, 1.0], [4.0, 3.0], [3.0, 3.0]]).double()

    def scores():
        sums = torch.rand(3, 2, generator=numbers, dtype=torch.float64) * counts
        return DocumentScores(tuple(benchmark.METRICS), sums, counts, (0, 1, 2), "documents")

    first, second = [scores() for _ in range(3)], [scores() for _ in range(3)]
    for place, (name, scale) in enumerate(benchmark.METRICS.items()):
        means = [
            [scale * float(one.sums[:, place].sum() / counts[:, place].sum()) for one in all_seeds]
            for all_seeds in (first, second)
        ]
        for found, wanted in (
            (benchmark.numbers_of(first), means[0]),
            (benchmark.numbers_of(first, second), [a - b for a, b in zip(*means, strict=True)]),
        ):
            one = found[name]
            assert one["by_seed"] == pytest.approx(wanted)
            assert one["value"] == pytest.approx(statistics.mean(wanted))
            error = statistics.stdev(wanted) / math.sqrt(3)
            assert one["error_of_seeds"] == pytest.approx(error)
            assert one["error_of_text"] > 0
    assert benchmark.numbers_of(first[:1])["brier_1"]["error_of_seeds"] is None


def test_every_model_is_trained_and_scored(benchmark, text, tmp_path, capsys, monkeypatch):
    threads, file = torch.get_num_threads(), tmp_path / "numbers.json"
    contexts, evaluate = set(), benchmark.evaluate

    def watched(model, rows, settings, **options):
        contexts.add(settings.min_context * model.chunk_size)
        return evaluate(model, rows, settings, **options)

    monkeypatch.setattr(benchmark, "evaluate", watched)
    try:
        benchmark.main([*SIZES.split(), "--data", str(text), "--json", str(file)])
    finally:
        torch.set_num_threads(threads)
    found = json.loads(file.read_text())["results"]
    runs = found["runs"]
    assert {name: run["steps"] for name, run in runs.items()} == {
        "several": 6, "single 1": 6, "single 2": 6, "short 1": 3, "short 2": 3,
    }  # fmt: skip
    # Rows of either size are as likely.
    single = [runs[f"single {size}"] for size in (1, 2)]
    flops = [run["training_flops"] for run in single]
    assert flops[0] > flops[1]
    assert runs["several"]["training_flops"] == pytest.approx(statistics.mean(flops))
    assert runs["short 1"]["training_flops"] == pytest.approx(flops[0] / 2)
    # One vector of 8 features more than a model of one size.
    assert single[0]["trained_parameters"] == single[1]["trained_parameters"]
    assert runs["several"]["trained_parameters"] == single[0]["trained_parameters"] + 8
    for name, of_size in found["differences"].items():
        assert set(of_size) == {"1", "2"}
        for size, metrics in of_size.items():
            other = runs[f"{name.removeprefix('several - ')} {size}"]["scores"][size]
            for metric, one in metrics.items():
                mine = runs["several"]["scores"][size][metric]["value"]
                assert one["value"] == pytest.approx(mine - other[metric]["value"])
            assert metrics["energy_score"]["value"] != 0
    assert "several - short   K = 2   energy_score" in capsys.readouterr().out
    assert found["errors_of_text_over"] == "9 documents"
    assert found["scored_tokens"] == 12 * (16 - 4)
    assert contexts == {4}  # tokens, for every size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sizes 2 3", "--sizes must divide"),
        ("--tokens 126", "must be multiples of the largest"),
        ("--context 6", "must be multiples of the largest"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(benchmark, options, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([*options.split(), "--data", "missing"])
    assert message in capsys.readouterr().err
