"""What an evaluation of short chunks costs, and how much its draws alone move it.

*Speed.* At K = 2 the four tokens of Brier-4 are two chunks: every draw is read back by the model,
which draws the next one. `evaluate` does so for all positions at once, in branches of one cache.
It is timed beside two loops over positions that draw as much:

    plain loop     at each position, the text before it is read anew, and again with each draw
    cached loop    the text is read once; at each position, its branches are continued

The plain loop's cost grows with the square of a row's length. Seconds are those of the processor,
so that other programs do not count.

*Spread.* A small model, trained on the synthetic language (`synthetic_language.py`), is evaluated
again and again on the same rows, with 2 draws and with 8. All pairs of draws are used: 28 instead
of 1 for collisions. The standard deviation over seeds is printed for each Brier-n.

    python benchmarks/evaluation.py --json evaluation.json
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved_seconds, print_results
from synthetic_language import SyntheticLanguage
from torch import Generator, Tensor, nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate
from calmkit.evaluation.scored_text import HIGHEST_ORDER, chunks_to_draw, find_targets
from calmkit.heads import GaussianHead
from calmkit.metrics import NgramSums
from calmkit.models import CALM, ChunkEmbedding

CPU = torch.device("cpu")


def build_model(autoencoder: MLPAutoencoder, hidden: int, depth: int) -> CALM:
    """A model on an autoencoder, with a head of one evaluation."""
    vocab_size, chunk_size = autoencoder.vocab_size, autoencoder.chunk_size
    return CALM(
        autoencoder=autoencoder,
        input_encoder=ChunkEmbedding(vocab_size, chunk_size, hidden),
        backbone=TransformerBackbone(hidden, depth=depth, heads=4),
        head=GaussianHead(hidden, autoencoder.latent_size, width=hidden, depth=2),
    )


def rows_of(tokens: Tensor) -> EvaluationRows:
    """Rows (rows, positions, chunk) that are text throughout, each a document of its own."""
    rows, positions, _ = tokens.shape
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((positions,),) * rows)
    return EvaluationRows(batch, torch.arange(rows))


@torch.no_grad()
def plain_loop(
    model: CALM, rows: EvaluationRows, settings: EvaluationSettings, generator: Generator
) -> list[float]:
    """Brier-1 to 4, position by position, reading the text before each one anew."""
    tokens = rows.batch.tokens
    count, positions, chunk_size = tokens.shape
    draws = []
    for place in range(settings.min_context, positions):
        known = tokens[:, :place]
        chunk = model.sample_chunks(_last_state(model, known), settings.draws, generator)
        text = known.repeat(settings.draws, 1, 1)
        drawn = [chunk.flatten(0, 1)]
        while len(drawn) < chunks_to_draw(chunk_size):
            text = torch.cat([text, drawn[-1][:, None]], dim=1)
            drawn.append(model.sample_chunks(_last_state(model, text), 1, generator)[0])
        draws.append(torch.cat(drawn, dim=-1).view(settings.draws, count, -1))
    return _brier(rows, settings, torch.stack(draws, dim=2).flatten(1, 2))


@torch.no_grad()
def cached_loop(
    model: CALM, rows: EvaluationRows, settings: EvaluationSettings, generator: Generator
) -> list[float]:
    """The same, where the text is read once and each position's branches continue its cache."""
    tokens = rows.batch.tokens
    count, positions, chunk_size = tokens.shape
    chunks = chunks_to_draw(chunk_size)
    cache = model.backbone.new_cache(count, positions + chunks)
    everything = torch.ones_like(tokens).bool()
    states = model.backbone(model.input_encoder(tokens, everything), cache=cache)
    draws = []
    for place in range(settings.min_context, positions):
        row = torch.arange(count).repeat(settings.draws)
        branch = cache.select(row, torch.full_like(row, place))
        drawn = [
            model.sample_chunks(states[:, place - 1], settings.draws, generator).flatten(0, 1)
        ]
        while len(drawn) < chunks:
            vectors = model.input_encoder(drawn[-1], torch.ones_like(drawn[-1]).bool())
            state = model.backbone(vectors[:, None], cache=branch)[:, 0]
            drawn.append(model.sample_chunks(state, 1, generator)[0])
        draws.append(torch.cat(drawn, dim=-1).view(settings.draws, count, -1))
    return _brier(rows, settings, torch.stack(draws, dim=2).flatten(1, 2))


def _last_state(model: CALM, text: Tensor) -> Tensor:
    vectors = model.input_encoder(text, torch.ones_like(text).bool())
    return model.backbone(vectors)[:, -1]


def _brier(rows: EvaluationRows, settings: EvaluationSettings, draws: Tensor) -> list[float]:
    """Brier-1 to 4 of draws for all scored positions, row by row."""
    targets = find_targets(rows.batch.tokens, rows.batch.real, settings.min_context)
    sums = NgramSums.of_draws(draws, targets.tokens, targets.counted, targets.row, len(draws[0]))
    total = (2 * sums.hits - sums.collisions).sum(dim=(0, 2)) / sums.counts.sum(dim=(0, 2))
    return (100 * total).tolist()


def measure_speed(args: argparse.Namespace, positions: int) -> dict[str, Any]:
    """Processor seconds of `evaluate` and of the loops, and how many times longer these take."""
    torch.manual_seed(args.seed)
    autoencoder = MLPAutoencoder(2, args.vocab, 16, width=args.hidden)
    model = build_model(autoencoder, args.hidden, args.depth).eval()
    shape = (args.speed_rows, positions, 2)
    rows = rows_of(torch.randint(args.vocab, shape))
    settings = EvaluationSettings(
        rows=args.speed_rows, draws=2, min_context=args.context, bootstrap=10
    )
    generator = Generator().manual_seed(args.seed)

    def ours() -> None:
        evaluate(model, rows, settings, seed=args.seed)

    works: dict[str, Callable[[], Any]] = {
        "evaluate": ours,
        "plain loop": partial(plain_loop, model, rows, settings, generator),
        "cached loop": partial(cached_loop, model, rows, settings, generator),
    }
    seconds = interleaved_seconds(works, args.rounds, CPU, clock=time.process_time)
    times = {
        name: statistics.median(
            one / other for one, other in zip(spent, seconds["evaluate"], strict=True)
        )
        for name, spent in seconds.items()
    }
    return {
        "positions": positions,
        "seconds": {name: statistics.median(spent) for name, spent in seconds.items()},
        "times_evaluate": times,
    }


def descend(module: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Train a module for a little while."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def measure_spread(args: argparse.Namespace, chunk_size: int) -> dict[str, Any]:
    """Standard deviation of each Brier-n over redraws, with few draws and with many."""
    language = SyntheticLanguage.seeded(args.seed)
    generator = Generator().manual_seed(args.seed)

    def texts(rows: int) -> Tensor:
        return language.sample(rows, 48, generator).view(rows, -1, chunk_size)

    torch.manual_seed(args.seed)
    autoencoder = MLPAutoencoder(chunk_size, language.vocab_size, 16, width=32)
    descend(
        autoencoder,
        lambda: autoencoder.loss(texts(16), generator).total.mean(),
        args.autoencoder_steps,
    )
    model = build_model(autoencoder, 32, 1)
    descend(model, lambda: model.loss(rows_of(texts(16)).batch, generator).total, args.steps)
    rows = rows_of(texts(args.spread_rows))
    found: dict[str, Any] = {"chunk": chunk_size}
    for draws in (2, 8):
        settings = EvaluationSettings(
            rows=args.spread_rows, draws=draws, min_context=24 // chunk_size, bootstrap=10
        )
        redrawn = [
            [b.value for b in evaluate(model, rows, settings, seed=seed).brier.brier]
            for seed in range(args.redraws)
        ]
        found[f"{draws}_draws"] = [
            {"mean": statistics.mean(values), "sd": statistics.stdev(values)}
            for values in zip(*redrawn, strict=True)
        ]
    found["sd_ratio"] = [
        many["sd"] / few["sd"]
        for many, few in zip(found["8_draws"], found["2_draws"], strict=True)
    ]
    return found


def show(results: dict[str, Any]) -> None:
    """Print the results as tables."""
    print("Evaluation at K = 2, processor seconds")
    for speed in results["speed"]:
        for name, seconds in speed["seconds"].items():
            times = f"{speed['times_evaluate'][name]:6.1f} x"
            print(f"    {speed['positions']:4} positions   {name:12} {seconds:8.3f} s   {times}")
    print("\nStandard deviation over redraws, in per cent: 2 draws, 8 draws, ratio")
    for world in results["spread"]:
        for n in range(HIGHEST_ORDER):
            few, many = (world[f"{draws}_draws"][n] for draws in (2, 8))
            print(
                f"    K = {world['chunk']}, Brier-{n + 1} ({many['mean']:6.2f})   {few['sd']:.3f}"
                f"   {many['sd']:.3f}   {world['sd_ratio'][n]:.2f}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Cost and spread of an evaluation.")
    parser.add_argument(
        "--positions", type=int, nargs="+", default=[64, 128, 256], help="of a row, for speed"
    )
    parser.add_argument("--context", type=int, default=16, help="chunks before the first scored")
    parser.add_argument("--speed-rows", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=512, help="tokens, for speed")
    parser.add_argument("--hidden", type=int, default=128, help="features, for speed")
    parser.add_argument("--depth", type=int, default=4, help="layers, for speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 4], help="each K, for spread")
    parser.add_argument("--steps", type=int, default=60, help="of the small model's training")
    parser.add_argument("--autoencoder-steps", type=int, default=200)
    parser.add_argument("--spread-rows", type=int, default=16)
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {
        "setting": {name: value for name, value in vars(args).items() if name != "json"},
        "speed": [measure_speed(args, positions) for positions in args.positions],
        "spread": [measure_spread(args, size) for size in args.chunks],
    }
    show(results)
    print_results(results, CPU, args.json)


if __name__ == "__main__":
    main()
