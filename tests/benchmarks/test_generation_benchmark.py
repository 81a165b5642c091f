"""The command of the generation benchmark, with sizes that take a moment, and its plain parts."""

import argparse
import math
import random
from itertools import pairwise

import laws
import pytest
import torch
from benchmark_runs import check_form, results, run_benchmark

import calmkit
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sizes = (
        "--hidden 16 --depth 1 --heads 2 --head-width 16 --head-depth 1 --latent 16 --width 64 "
        "--vocab 300 --large-vocab 600 --rows 5 --candidates 40 --batches 1 3 "
        "--prompt-chunks 2 --new-chunks 2 --selection-rows 4 --rounds 2 --numbers 4 8 16"
    )
    return run_benchmark(folder, "generation", sizes, "--plot", folder / "plot.png")


def check_ratio(times, ours, theirs):
    """The median of ratios is near the ratio of medians, here of two rounds."""
    assert 0 < times["least"] <= times["median"] <= times["most"]
    assert times["least"] * 0.999 < theirs / ours < times["most"] * 1.001


def test_prints_tables_and_writes_the_same_json(written):
    check_form(written)
    found = results(written)
    assert set(found) == {"setting", "clock", "chunks", "generation", "selection", "law"}
    assert found["clock"] == "processor seconds" and found["setting"]["candidates"] == 40
    assert (
        written[0].count("goal") == 4 + 2 + 1
    )  # two ratios of two chunks, two batches, selection


def test_chunks_are_compared_at_three_levels_of_agreement(written):
    rows = results(written)["chunks"]
    assert [(row["vocabulary"], row["rows"], row["agreement"]) for row in rows] == [
        (vocabulary, rows, level)
        for vocabulary, rows in ((300, 5), (600, 1))
        for level in ("low", "middle", "high")
    ]
    for row in rows:
        assert set(row["times_faster"]) == set(row["draws"]) == {"batch", "exact"}
        ms = row["milliseconds"]
        for name, times in row["times_faster"].items():
            check_ratio(times, ms[name], ms["published"])
        size = row["megabytes"]
        assert row["times_smaller"] == pytest.approx(size["published"] / size["batch"])
        # The logits of all candidates are there at once, at least.
        least = 40 * row["rows"] * 4 * row["vocabulary"] * 4 / 1e6
        assert size["batch"] < size["published"] > least
        assert row["law_difference"] < 1e-10  # no candidate so near a tie in so few
        assert 16 <= row["draws"]["batch"] <= 40
        endings = row["equal_endings"]
        assert len(endings) == 4 and all(a >= b for a, b in pairwise(endings))
        assert endings[-1] == row["collision_probability"]
        middle = row["agreement"] == "middle"
        assert row["times_faster_wanted"] == (
            {300: 4, 600: 6}[row["vocabulary"]] if middle else None
        )
        assert row["times_smaller_wanted"] == (8 if middle else None)
    for low, middle, high in (rows[:3], rows[3:]):
        found = [row["collision_probability"] for row in (low, middle, high)]
        assert max(found[:2]) < found[2]
        assert high["draws"]["batch"] < 40  # rows whose candidates agree stop early


def test_generation_is_compared_at_two_temperatures(written):
    rows = results(written)["generation"]
    assert [(row["batch"], row["temperature"]) for row in rows] == [
        (1, 0.5), (1, 1.0), (3, 0.5), (3, 1.0),
    ]  # fmt: skip
    for row in rows:
        speed = row["tokens_per_second"]
        half = row["temperature"] == 0.5
        assert set(speed) == {"published", *(("batch", "exact") if half else ["plain"])}
        for name, times in row["times_faster"].items():
            check_ratio(times, 1 / speed[name], 1 / speed["published"])
        assert row["times_faster_wanted"] == (5 if half else None)
        assert set(row["draws"]) == set(row["times_faster"])
        assert row["draws"] == {"plain": 1} if not half else 16 <= row["draws"]["batch"] <= 40
    # Three rows cost hardly more than one: 3.0 times the tokens per second here.
    one, three = (row["tokens_per_second"]["published"] for row in (rows[1], rows[3]))
    assert three > 1.5 * one


def test_selection_is_compared(written):
    row = results(written)["selection"]
    assert row["rows"] == 4 and 0 < row["collision_probability"] < 1
    assert 0 < row["times_faster"]["least"] <= row["times_faster"]["median"]
    assert row["times_faster_wanted"] == 20


def test_curves_are_the_enumerated_laws(written):
    """Against lists of candidates, one by one, in plain Python."""
    rows = results(written)["law"]
    assert [row["temperature"] for row in rows] == pytest.approx([1 / 3, 0.4, 0.5, 0.7])
    for row in rows:
        assert row["candidates"] == [4, 8, 16]
        want = laws.tempered(row["law"], row["temperature"])
        for number, distance in zip(row["candidates"], row["total_variation"], strict=True):
            law = laws.expected_batch_law(row["law"], number, row["temperature"])
            other = sum(abs(law[x] - want[x]) for x in range(len(want))) / 2
            assert distance == pytest.approx(other, rel=1e-9)
        (x0, x1), (y0, y1) = row["candidates"][::2], row["total_variation"][::2]
        # Three points, the middle one at half the way: their fit is the line between the ends.
        assert row["slope"] == pytest.approx(math.log(y1 / y0) / math.log(x1 / x0))


def test_plain_weights_are_the_papers(load):
    weights = load("published_generation").counter_weights
    a, b, c = (7, 7), (8, 8), (9, 9)
    assert weights([a, b, a, b, a, c], 2) == {a: 3, b: 1}
    assert weights([a, b, a, b, a, c], 3) == {a: 1}
    assert weights([a, b, c], 2) == {a: 1, b: 1, c: 1}
    with pytest.raises(ValueError, match="at least one chunk; got none"):
        weights([], 2)


def test_plain_choice_takes_each_row_from_its_own_candidates(load):
    choose = load("published_generation").choose_with_counter
    rows = torch.tensor([[1, 1], [2, 2], [3, 3]])
    candidates = rows.expand(4, 3, 2).clone()
    candidates[:2] += 10
    candidates[1, 0] = 5  # in the first row only the last two agree
    chosen = choose(candidates, 2, random.Random(0))
    assert chosen[0].tolist() == [1, 1]
    assert (chosen[1:] % 10).tolist() == [[2, 2], [3, 3]]


@pytest.fixture
def parts(load):
    """A head and a decoder, whose candidates agree now and then, and four states."""
    agreement = load("agreement")
    settings = argparse.Namespace(
        hidden=8, latent=6, chunk=3, width=16, head_width=8, head_depth=1, candidates=50
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = agreement.build_autoencoder(settings, 200, CPU)
        states = torch.randn(4, 8, dtype=torch.float32)
        return agreement.agreeing_head(settings, autoencoder, states, 0.1), autoencoder, states


def test_agreement_is_that_of_all_pairs(load):
    candidates = torch.tensor([[1, 2], [1, 2], [1, 3], [4, 2]])[:, None]
    assert load("agreement").agreement(candidates) == pytest.approx([3 / 6, 1 / 6])


def test_agreement_of_a_saved_model(load, tmp_path, monkeypatch):
    """Of a model whose chunks are all the same, and of one whose noise is large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(1, 5)) for i in range(400)]
    text = tmp_path / "text"
    text.mkdir()
    for number in range(4):
        (text / f"{number}.txt").write_text(" ".join(words[number:] * 10), encoding="utf-8")
    found = []
    for scale in (0.0, 30.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = CALM(
                autoencoder=MLPAutoencoder(2, 300, 6, width=16),
                input_encoder=ChunkEmbedding(300, 2, 8),
                backbone=TransformerBackbone(8, depth=1, heads=2),
                head=EnergyHead(8, 6, width=8, depth=1, noise_size=4, noise_scale=scale),
            )
        calmkit.save(model.to(torch.float32), tmp_path / f"model-{scale}")
        found.append(load("agreement").agreement_of_trained(tmp_path / f"model-{scale}", text))
    assert found[0] == [1.0, 1.0]
    assert 0 <= found[1][1] <= found[1][0] < 0.9


def test_a_head_agrees_as_asked_for(parts, load):
    head, autoencoder, states = parts
    latents = head.sample(states, 2000, torch.Generator().manual_seed(3))
    endings = load("agreement").agreement(autoencoder.decode_tokens(latents))
    # 0.10 here; of 50 candidates it was set to 0.1.
    assert endings[-1] == pytest.approx(0.1, abs=0.03)
    # Former places agree nearly always.
    assert endings[0] < 3 * endings[-1]


def test_a_wrong_decoder_has_another_law(parts, load, monkeypatch):
    cost, (head, autoencoder, states) = load("chunk_cost"), parts
    latents = head.sample(states, 50, torch.Generator().manual_seed(0)).detach()
    assert cost.law_difference(autoencoder, latents) < 1e-12
    real = cost.count_weights
    monkeypatch.setattr(cost, "count_weights", lambda counts, n, _: real(counts, n, 0.4))
    with pytest.raises(RuntimeError, match="same law; they differ by 0"):
        cost.law_difference(autoencoder, latents)


def test_the_published_loop_reads_what_it_wrote(parts, load):
    """Each chunk follows from the state after all of the text before it, read without a cache."""
    published, (head, autoencoder, _) = load("published_generation"), parts
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedding = ChunkEmbedding(200, 3, 8).float()
        backbone = TransformerBackbone(8, depth=1, heads=2).float()
    model = CALM(autoencoder=autoencoder, input_encoder=embedding, backbone=backbone, head=head)
    prompts = torch.randint(200, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    seen = []

    def draw(states, n, generator):
        seen.append(states)
        return published.PublishedDraw.of(head, autoencoder)(states, n, generator)

    text = published.published_generate(
        model, draw, prompts, new_chunks=3, power=2, candidates=9,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert text.shape == (2, 3, 3)
    for step, state in enumerate(seen):
        read = torch.cat([prompts, text[:, :step]], dim=1)
        with torch.no_grad():
            want = backbone(embedding(read, torch.ones_like(read, dtype=torch.bool)))[:, -1]
        torch.testing.assert_close(state, want)


def test_published_candidates_are_those_of_the_same_noise(parts, load):
    head, autoencoder, states = parts
    draw = load("published_generation").PublishedDraw.of(head, autoencoder)
    got = draw(states, 50, torch.Generator().manual_seed(5))
    shape = (50, 4, head.noise_size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float32)
    want = autoencoder.decode_tokens(head.sample_from(states, noise - 0.5))
    assert torch.equal(got, want)
    assert len(got.flatten(0, 1).unique(dim=0)) > 10  # not one chunk only
