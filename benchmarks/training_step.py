"""One training step of calmkit against the literal published one.

The published step (`published_model.py`) is taken in float32 by PyTorch as it comes. Every other
way to take a step is measured beside it: after each of its steps one published step is taken, and
a ratio is the median of the ratios within such a round. calmkit's step is that of
`calmkit.training.fit` with all it does: data, checks, clipping, the curve.

`where` says where calmkit's time goes: each part of the step is run alone, forward and backward.
Tokens are drawn from Zipf's law, in documents of 3000.

On the CPU the clock counts processor seconds of one thread: other work on the machine hardly
enters.

    python benchmarks/training_step.py --json training_step.json
"""

import argparse
import contextlib
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from energy_head_cost import count_operations
from lightning_fabric import Fabric
from measuring import choose_clock, interleaved_seconds, peak_bytes, print_results, times_faster
from published_model import (
    PublishedAutoencoder,
    PublishedModel,
    PublishedStep,
    initialize,
)
from torch import Generator, Tensor, nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import TokenStore, TrainingBatches
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding
from calmkit.training import (
    MatrixDecayAdamW,
    Progress,
    TrainingSettings,
    compiled_blocks,
    fast_products,
    fit,
)

CPU = torch.device("cpu")
DOCUMENT = 3000  # tokens
# Times faster than the published step in float32.
GOALS = {"model, float32": 2.0, "model, bfloat16": 4.0, "autoencoder, bfloat16": 1.5}


@dataclass(frozen=True)
class Size:
    """A model, and the rows of a step.

    Attributes:
        hidden: Features of backbone and head.
        depth: Layers of the backbone.
        head_depth: Blocks of the head.
        width: Features of the autoencoder.
        latent: Dimensions of a latent.
        vocab: Number of token ids.
        chunk: K.
        rows: Rows in a step.
        positions: Chunks in a row.
    """

    hidden: int
    depth: int
    head_depth: int
    width: int
    latent: int
    vocab: int
    chunk: int
    rows: int
    positions: int

    @property
    def inner(self) -> int:
        """Hidden features of the backbone's feed-forward."""
        return -(-self.hidden // 3) * 8

    @property
    def heads(self) -> int:
        """Attention heads, of 64 features."""
        return max(1, self.hidden // 64)


SIZES = {
    "small": Size(256, 4, 3, 256, 64, 4096, 4, 8, 128),
    "large": Size(512, 8, 3, 512, 64, 32000, 4, 8, 128),
    "tiny": Size(16, 1, 1, 16, 4, 40, 2, 2, 6),
}


@dataclass(frozen=True)
class Way:
    """One way to take a step.

    Attributes:
        published: Whether the step is the literal published one, or calmkit's.
        precision: Of Fabric.
        fast: Whether float32 products are oneDNN's.
        compiled: Whether blocks are compiled.
    """

    published: bool = False
    precision: str = "32-true"
    fast: bool = True
    compiled: bool = False


WAYS = {
    "published, float32, oneDNN": Way(published=True),
    "published, bfloat16": Way(published=True, precision="bf16-mixed"),
    "float32, MKL": Way(fast=False),
    "float32": Way(),
    "float32, compiled": Way(compiled=True),
    "bfloat16": Way(precision="bf16-mixed"),
    "bfloat16, compiled": Way(precision="bf16-mixed", compiled=True),
}


def zipf_text(vocab: int, tokens: int) -> TokenStore:
    """Documents of tokens whose frequency falls as (rank + 2.7)^-1.15, about as in books."""
    weights = (np.arange(vocab - 1) + 3.7) ** -1.15
    drawn = np.random.default_rng(0).choice(vocab - 1, tokens, p=weights / weights.sum()) + 1
    drawn[::DOCUMENT] = 0
    offsets = np.append(np.arange(0, tokens, DOCUMENT), tokens)
    return TokenStore(drawn.astype(np.uint16), offsets, vocab, 0, num_characters=0)


def our_autoencoder(size: Size) -> MLPAutoencoder:
    """The autoencoder of calmkit of that size."""
    return MLPAutoencoder(size.chunk, size.vocab, size.latent, width=size.width)


def our_model(size: Size) -> CALM:
    """The model of calmkit of that size."""
    return CALM(
        autoencoder=our_autoencoder(size),
        input_encoder=ChunkEmbedding(size.vocab, size.chunk, size.hidden),
        backbone=TransformerBackbone(size.hidden, depth=size.depth, heads=size.heads),
        head=new_head(size),
    )


def new_head(size: Size) -> EnergyHead:
    """The head of that size."""
    return EnergyHead(size.hidden, size.latent, width=size.hidden, depth=size.head_depth)


def their_autoencoder(size: Size) -> PublishedAutoencoder:
    """The published autoencoder of that size."""
    inner = -(-size.width // 3) * 8
    return PublishedAutoencoder(size.chunk, size.vocab, size.latent, width=size.width, inner=inner)


def their_model(size: Size) -> PublishedModel:
    """The published model of that size."""
    autoencoder = their_autoencoder(size)
    initialize(autoencoder)
    return PublishedModel(
        autoencoder, new_head(size), depth=size.depth, heads=size.heads, inner=size.inner
    )


def their_step(task: str, size: Size, text: TrainingBatches, way: Way) -> Callable[[], None]:
    """The published training step, from the start."""
    torch.manual_seed(0)
    module = their_model(size) if task == "model" else their_autoencoder(size)
    initialize(module)
    lower = way.precision == "bf16-mixed"
    step = PublishedStep(module, text.batch_at, rate=1e-4, lower=lower)

    def take() -> None:
        with faster(way):
            step()

    return take


def faster(way: Way) -> contextlib.AbstractContextManager[None]:
    """Fast products, where the way takes them."""
    return fast_products(CPU) if way.fast else contextlib.nullcontext()


def our_steps(
    task: str,
    size: Size,
    text: TrainingBatches,
    way: Way,
    steps: int,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Take steps of calmkit, and do something after each."""
    torch.manual_seed(0)
    module = our_model(size) if task == "model" else our_autoencoder(size)

    def progress(done: Progress) -> None:
        with slow_again():
            between()

    compiling = compiled_blocks(module) if way.compiled else contextlib.nullcontext()
    with faster(way), compiling:
        fit(
            module,
            lambda module, batch, generator: {"loss": loss_of(module, batch, generator)},
            text.batch_at,
            settings=TrainingSettings(steps=steps, warmup_steps=0),
            seed=0,
            optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=1e-4),
            fabric=Fabric(accelerator="cpu", devices=1, precision=cast(Any, way.precision)),
            progress=progress,
        )


def loss_of(module: nn.Module, batch: ChunkBatch, generator: Generator) -> Tensor:
    """The loss that calmkit minimises."""
    if isinstance(module, CALM):
        return module.loss(batch, generator).total
    return cast(MLPAutoencoder, module).loss_rows(batch, generator).total.mean()


@contextlib.contextmanager
def slow_again() -> Any:
    """PyTorch's default products, inside `fast_products`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def race(
    task: str, size: Size, text: TrainingBatches, way: Way, args: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds of a way's steps and of a published step after each; the first are not counted."""
    reference = their_step(task, size, text, Way(published=True, fast=False))
    ours: list[float] = []
    theirs: list[float] = []
    marks = [args.clock()]

    def between() -> None:
        ours.append(args.clock() - marks[-1])
        start = args.clock()
        reference()
        theirs.append(args.clock() - start)
        marks.append(args.clock())

    steps = args.rounds + args.warm
    if way.published:
        step = their_step(task, size, text, way)
        for _ in range(steps):
            step()
            between()
    else:
        our_steps(task, size, text, way, steps, between)
    return ours[args.warm :], theirs[args.warm :]


def measure_task(task: str, size: Size, args: argparse.Namespace) -> dict[str, Any]:
    """Time, memory and share of the matrix peak of every way to take a step."""
    text = batches(size, args)
    plain = Way(published=True, fast=False)
    step = their_step(task, size, text, plain)
    operations = {
        "published": count_operations(step),
        "calmkit": count_operations(lambda: our_steps(task, size, text, Way(), 1)),
    }
    rows = {
        "published, float32": {
            "megabytes": peak_bytes(their_step(task, size, text, plain), CPU) / 1e6
        }
    }
    for name in args.ways:
        way = WAYS[name]
        seconds, theirs = race(task, size, text, way, args)
        row: dict[str, Any] = {
            "milliseconds": 1e3 * statistics.median(seconds),
            "published_milliseconds": 1e3 * statistics.median(theirs),
            "times_faster": times_faster(seconds, theirs),
            "times_faster_wanted": GOALS.get(f"{task}, {name.removesuffix(', compiled')}"),
        }
        done = operations["published" if way.published else "calmkit"]
        row["gigaflops"] = done / statistics.median(seconds) / 1e9
        row["share_of_peak"] = row["gigaflops"] / args.peak[peak_of(way)]
        if not way.compiled:  # compiling allocates, too
            row["megabytes"] = peak_bytes(a_step(task, size, text, way), CPU) / 1e6
        rows[name] = row
        show_row(name, row)
    return {"operations": operations, "ways": rows}


def a_step(task: str, size: Size, text: TrainingBatches, way: Way) -> Callable[[], None]:
    """One step from the start, with the optimiser's state that it makes."""
    if way.published:
        return their_step(task, size, text, way)
    return lambda: our_steps(task, size, text, way, 1)


def batches(size: Size, args: argparse.Namespace) -> TrainingBatches:
    """The rows of the steps."""
    needed = size.rows * size.positions * size.chunk
    return TrainingBatches(
        zipf_text(size.vocab, DOCUMENT + 4 * needed),
        chunk_size=size.chunk,
        positions=size.positions,
        batch_size=size.rows,
        seed=0,
    )


def where(size: Size, args: argparse.Namespace, precision: str) -> dict[str, float]:
    """Milliseconds of each part of the model's step, forward and backward, run alone."""
    torch.manual_seed(0)
    text, model = batches(size, args), our_model(size)
    head = cast(EnergyHead, model.head)
    batch: ChunkBatch = text.batch_at(0)
    optimizer = MatrixDecayAdamW([p for p in model.parameters() if p.requires_grad])
    lower = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")

    with lower, torch.no_grad():
        vectors = model.input_encoder(batch.tokens, batch.real)
        states = model.backbone(vectors)[:, :-1]
        target = model.autoencoder.encode_rows(batch)[:, 1:]
        noise = head.noise.draw((8, *states.shape[:-1], head.noise_size), None,
                                dtype=torch.float32, device=CPU)  # fmt: skip
        samples = head.sample_from(states, noise)

    def backward(make: Callable[[], Tensor]) -> Callable[[], None]:
        def work() -> None:
            with lower:
                result = make()
            result.backward(torch.ones_like(result))

        return work

    def leaf(x: Tensor) -> Tensor:
        return x.detach().requires_grad_()

    def build() -> None:
        text.batch_at(1)

    def encode() -> None:
        with lower, torch.no_grad():
            model.autoencoder.encode_rows(batch)

    works: dict[str, Callable[[], Any]] = {
        "data": build,
        "input encoder": backward(lambda: model.input_encoder(batch.tokens, batch.real)),
        "backbone": backward(lambda: model.backbone(leaf(vectors))),
        "encoding of targets": encode,
        "head": backward(lambda: head.sample_from(leaf(states), noise)),
        "rule": backward(lambda: head.rule.score(leaf(samples), target)),
        "optimizer": optimizer.step,
    }
    for work in works.values():
        work()  # gradients for the optimizer
    seconds = interleaved_seconds(works, args.rounds, CPU, clock=args.clock)
    return {name: 1e3 * statistics.median(found) for name, found in seconds.items()}


def matrix_peaks(args: argparse.Namespace) -> dict[str, float]:
    """GFLOP/s of products of square matrices, the fastest of some sizes."""
    found: dict[str, float] = {}
    for name, dtype, fast in (
        ("float32, MKL", torch.float32, False),
        ("float32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        best = 0.0
        for size in args.peak_sizes:
            x = torch.randn(size, size).to(dtype)
            out = torch.empty_like(x)
            works = {"product": functools.partial(multiply, x, out)}
            with faster(Way(fast=fast)):
                seconds = interleaved_seconds(works, args.rounds, CPU, clock=args.clock)
            best = max(best, 2 * size**3 / min(seconds["product"]) / 1e9)
        found[name] = best
    return found


def multiply(x: Tensor, out: Tensor) -> None:
    """One product."""
    torch.mm(x, x, out=out)


def peak_of(way: Way) -> str:
    """The matrix peak that a way is measured by."""
    if way.precision == "bf16-mixed":
        return "bfloat16"
    return "float32" if way.fast else "float32, MKL"


def show_row(name: str, row: dict[str, Any]) -> None:
    """Print one way's numbers."""
    faster, memory = row["times_faster"], row.get("megabytes")
    goal = row["times_faster_wanted"]
    print(
        f"    {name:27s}{row['milliseconds']:9.1f} ms{faster['median']:6.2f} x"
        f" ({faster['least']:.2f} to {faster['most']:.2f}{f'; goal {goal}' if goal else ''})"
        f"{100 * row['share_of_peak']:5.0f} % of peak"
        + (f"{memory:9.1f} MB" if memory is not None else "")
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print a JSON object."""
    parser = argparse.ArgumentParser(description="A training step against the published one.")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "large"])
    parser.add_argument("--tasks", nargs="+", default=["model", "autoencoder"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm", type=int, default=2, help="steps before the first counted")
    parser.add_argument("--peak-sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    args.clock, clock = choose_clock(CPU)
    hidden = ("json", "clock", "peak")
    args.peak = matrix_peaks(args)
    print("Matrix peak, GFLOP/s:", {name: round(value) for name, value in args.peak.items()})
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if name not in hidden},
        "clock": clock,
        "matrix_peak_gigaflops": args.peak,
        "sizes": {},
    }
    for name in args.sizes:
        size = SIZES[name]
        results["sizes"][name] = found = {"size": vars(size), "where": {}}
        for task in args.tasks:
            print(f"\n{task}, {name}: {size}")
            found[task] = measure_task(task, size, args)
        for kind, precision in (("float32", "32-true"), ("bfloat16", "bf16-mixed")):
            with fast_products(CPU):
                found["where"][kind] = parts = where(size, args, precision)
            print(f"where, {kind}:", {part: round(value, 1) for part, value in parts.items()})
    print_results(results, CPU, args.json)


if __name__ == "__main__":
    main()
