"""One model with several chunk sizes against models with one, on the same text.

Every model is a set of chunk sizes K with one backbone, one head and one input encoder. Only the
frozen autoencoders are separate, one for each K, with latents of equal size; all models share
them. A row of a step is cut into chunks of a K that is drawn for this row, and a learnt vector of
that K is added to each input of the backbone:

    several    {1, 2, 4}, all steps         a third of its tokens in each K
    single     {K}, all steps               as many tokens as `several` in total
    short      {K}, a third of the steps    as many tokens in this K as `several`

Each K is scored alone, by Brier-1 on the same held-out rows, after the same number of tokens.
Differences are paired over documents, and averaged over seeds; a seed has its own autoencoders.

    python benchmarks/variable_k.py --json variable_k.json

trains on the embedded text; `--data FOLDER` takes a prepared folder.
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from measuring import print_results
from torch import Tensor, nn
from torch.nn.functional import pad

from calmkit.accounting import account
from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows, TrainingBatches, evaluation_rows, prepare_corpus
from calmkit.devices import fast_products
from calmkit.evaluation import EvaluationSettings, evaluate, evaluate_unigram, restored_share
from calmkit.heads import EnergyHead, Head, MixtureHead
from calmkit.metrics import DocumentScores, Estimate, paired_difference
from calmkit.models import CALM, ChunkEmbedding, InputEncoder
from calmkit.training import MatrixDecayAdamW, Objective, TrainingSettings, fit

CPU = torch.device("cpu")

HEADS: dict[str, type[Head]] = {"mixture": MixtureHead, "energy": EnergyHead}
"""Heads of the same constructor. Of the two, a mixture learns faster in a short training."""

METRICS = {"brier_1": 100.0, "energy_score": 1.0}
"""Metrics and their factors: Brier-1 is in per cent."""


class MarkedEmbedding(InputEncoder):
    """Reads chunks of K tokens with the embedding of longer ones, and adds a vector of that K.

    A chunk is padded on the left to the length that the embedding reads, as a document's first
    chunk is.
    """

    def __init__(self, embedding: ChunkEmbedding, mark: nn.Parameter, chunk_size: int) -> None:
        """Share an embedding, and have a mark."""
        super().__init__()
        self.embedding, self.mark = embedding, mark
        self.chunk_size = chunk_size
        self.vocab_size, self.hidden_size = embedding.vocab_size, embedding.hidden_size

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Encode chunks."""
        missing = self.embedding.chunk_size - self.chunk_size
        padded, known = (pad(x, (missing, 0)) for x in (tokens, real))
        return self.embedding(padded, known) + self.mark


class SeveralSizes(nn.Module):
    """Models of several chunk sizes, which are one model but for their autoencoders.

    Attributes:
        models: The model of each K, by its name.
    """

    def __init__(self, models: Sequence[CALM]) -> None:
        """Name the models by their chunk sizes."""
        super().__init__()
        self.models = nn.ModuleDict({str(model.chunk_size): model for model in models})

    def of_size(self, size: int) -> CALM:
        """The model of one K."""
        return cast(CALM, self.models[str(size)])

    def loss(self, batch: ChunkBatch, generator: torch.Generator) -> Tensor:
        """Mean over rows of their losses, with a K drawn for each row.

        Rows are exchangeable, so the first ones get the first K.
        """
        sizes, rows = [int(name) for name in self.models], len(batch.lengths)
        drawn = torch.randint(len(sizes), (rows,), generator=generator)
        total, begin = torch.zeros(()), 0
        for size, count in zip(sizes, drawn.bincount(minlength=len(sizes)).tolist(), strict=True):
            if count:
                part = regrouped(batch.rows(slice(begin, begin + count)), size)
                total = total + count * self.of_size(size).loss(part, generator).total
            begin += count
        return total / rows


def regrouped(batch: ChunkBatch, chunk_size: int) -> ChunkBatch:
    """The same text in shorter chunks, whose size divides that of the batch."""
    parts = batch.tokens.shape[-1] // chunk_size
    shape = (len(batch.lengths), -1, chunk_size)
    lengths = tuple(tuple(n * parts for n in row) for row in batch.lengths)
    return ChunkBatch(batch.tokens.reshape(shape), batch.real.reshape(shape), lengths)


class Experiment:
    """What the models of one seed share: text, autoencoders, sizes and held-out rows."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        corpus = prepare_corpus(args.data, vocab_size=None if args.data else args.vocab)
        self.vocab = corpus.tokenizer.vocab_size
        self.text_name = corpus.name
        chunks = {"chunk_size": args.longest, "positions": args.tokens // args.longest}
        self.text = TrainingBatches(corpus.train, **chunks, batch_size=args.rows, seed=seed)
        # The same rows for every seed.
        self.held_out = evaluation_rows(
            corpus.validation, **chunks, max_rows=args.evaluation_rows, seed=0
        )
        self.autoencoders = {size: self._trained_autoencoder(size) for size in args.sizes}

    def _trained_autoencoder(self, size: int) -> StandardizedAutoencoder:
        args = self.args
        torch.manual_seed(self.seed)
        module = MLPAutoencoder(size, self.vocab, args.latent, width=args.hidden)
        self._fit(
            module,
            lambda module, batch, generator: {
                "loss": cast(MLPAutoencoder, module)
                .loss_rows(regrouped(batch, size), generator)
                .total.mean()
            },
            steps=args.autoencoder_steps,
            rate=3e-3,
        )
        standardized = StandardizedAutoencoder(module.eval())
        standardized.fit_rows([regrouped(self.text.batch_at(step), size) for step in range(16)])
        return standardized

    def _fit(self, module: nn.Module, objective: Objective, *, steps: int, rate: float) -> None:
        with fast_products(CPU):
            fit(
                module,
                objective,
                self.text.batch_at,
                settings=TrainingSettings(
                    steps=steps, warmup_steps=math.ceil(steps / 10), decay_to=0.0
                ),
                seed=self.seed,
                optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=rate),
                fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
            )

    def new_model(self, sizes: Sequence[int]) -> SeveralSizes:
        """An untrained model of some chunk sizes; all have the same weights at the start."""
        args = self.args
        torch.manual_seed(self.seed)
        embedding = ChunkEmbedding(self.vocab, args.longest, args.hidden)
        backbone = TransformerBackbone(args.hidden, depth=args.depth, heads=args.heads)
        new_head = cast(Callable[..., Head], HEADS[args.head])
        head = new_head(args.hidden, args.latent, width=args.hidden, depth=args.head_depth)
        return SeveralSizes(
            [
                CALM(
                    autoencoder=cast(ChunkAutoencoder, self.autoencoders[size]),
                    input_encoder=MarkedEmbedding(
                        embedding, nn.Parameter(0.02 * torch.randn(args.hidden)), size
                    ),
                    backbone=backbone,
                    head=head,
                )
                for size in sizes
            ]
        )

    def trained(self, sizes: Sequence[int], steps: int) -> SeveralSizes:
        """A model of some chunk sizes, trained."""
        model = self.new_model(sizes)
        self._fit(
            model,
            lambda module, batch, generator: {
                "loss": cast(SeveralSizes, module).loss(batch, generator)
            },
            steps=steps,
            rate=self.args.rate,
        )
        return model

    def scores(self, model: SeveralSizes, size: int) -> DocumentScores:
        """Brier-1 and energy score of one K on the held-out rows, as sums over documents."""
        with fast_products(CPU):
            found = evaluate(
                model.of_size(size),
                self.rows_of(size),
                self._settings(size),
                seed=self.seed,
                highest_order=1,
            )
        return found.documents.select(*METRICS)

    def rows_of(self, size: int) -> EvaluationRows:
        """The held-out rows, in chunks of one K."""
        return EvaluationRows(regrouped(self.held_out.batch, size), self.held_out.document)

    def _settings(self, size: int) -> EvaluationSettings:
        args = self.args
        context = args.context // size
        return EvaluationSettings(rows=args.evaluation_rows, draws=args.draws, min_context=context)

    def unigram(self) -> float:
        """Brier-1 of token frequencies, in per cent."""
        ids = torch.cat([self.text.batch_at(step).tokens.flatten() for step in range(64)])
        frequencies = ids.bincount(minlength=self.vocab) / len(ids)
        found = evaluate_unigram(
            frequencies,
            self.rows_of(self.args.longest),
            self._settings(self.args.longest),
            seed=0,
            highest_order=1,
        )
        return found.brier[0].value

    def flops_per_row(self, size: int) -> float:
        """FLOPs of training on one row in chunks of one K, forward and backward."""
        model = self.new_model([size]).of_size(size)
        per_token = account(model, context=self.args.tokens // size).training_flops
        return self.args.tokens * sum(per_token.values())


def runs(args: argparse.Namespace) -> dict[str, tuple[tuple[int, ...], int]]:
    """Chunk sizes and steps of each run, by name."""
    sizes, steps = tuple(args.sizes), args.steps
    short = math.ceil(steps / len(sizes))
    found = {"several": (sizes, steps)}
    found |= {f"single {k}": ((k,), steps) for k in sizes}
    return found | {f"short {k}": ((k,), short) for k in sizes}


@dataclass(frozen=True)
class Run:
    """A training, and its scores for each K."""

    sizes: tuple[int, ...]
    steps: int
    parameters: int
    seconds: float
    scores: Mapping[int, DocumentScores]


@dataclass(frozen=True)
class SeedResult:
    """All runs of one seed, and what describes them."""

    text: str
    restored: Mapping[int, float]
    unigram: float
    flops_per_row: Mapping[int, float]
    runs: Mapping[str, Run]


def run_seed(args: argparse.Namespace, seed: int) -> SeedResult:
    """Train and score all models of one seed, on one thread."""
    torch.set_num_threads(1)
    experiment, done = Experiment(args, seed), {}
    restored = {
        size: restored_share(autoencoder, experiment.rows_of(size).batch)
        for size, autoencoder in experiment.autoencoders.items()
    }
    print(f"seed {seed}   tokens restored by K: {restored}", flush=True)
    for name, (sizes, steps) in runs(args).items():
        began = time.process_time()
        model = experiment.trained(sizes, steps)
        seconds = time.process_time() - began
        scores = {size: experiment.scores(model, size) for size in sizes}
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        done[name] = Run(sizes, steps, parameters, seconds, scores)
        brier = "   ".join(
            f"K = {size}: {one.estimate()[0].value:.4f}" for size, one in scores.items()
        )
        print(f"seed {seed}   {name:10s}{seconds:7.0f} s   Brier-1 of {brier}", flush=True)
    return SeedResult(
        text=experiment.text_name,
        restored=restored,
        unigram=experiment.unigram(),
        flops_per_row={size: experiment.flops_per_row(size) for size in args.sizes},
        runs=done,
    )


def over_seeds(scores: Sequence[DocumentScores]) -> DocumentScores:
    """Sums over the seeds, by document: their ratio is the mean over seeds."""
    sums, counts = (
        torch.stack([getattr(x, n) for x in scores]).sum(0) for n in ("sums", "counts")
    )
    return replace(scores[0], sums=sums, counts=counts)


def numbers_of(
    first: Sequence[DocumentScores], second: Sequence[DocumentScores] | None = None
) -> dict[str, Any]:
    """Means over seeds of each metric, or of first minus second, with their errors.

    The error of the text resamples it, with the trained models as they are; that of the seeds is
    the standard error of the mean over them, None for one seed.
    """

    def measured(one: DocumentScores, two: DocumentScores | None) -> list[Estimate]:
        return one.estimate() if two is None else paired_difference(one, two)

    means = measured(over_seeds(first), None if second is None else over_seeds(second))
    pairs = zip(first, second or [None] * len(first), strict=True)
    by_seed = [measured(one, two) for one, two in pairs]
    found = {}
    for index, (name, scale) in enumerate(METRICS.items()):
        values = [scale * one[index].value for one in by_seed]
        several = len(values) > 1
        found[name] = {
            "value": scale * means[index].value,
            "error_of_text": scale * cast(float, means[index].standard_error),
            "error_of_seeds": statistics.stdev(values) / math.sqrt(len(values))
            if several
            else None,
            "by_seed": values,
        }
    return found


def summary(args: argparse.Namespace, seeds: Sequence[SeedResult]) -> dict[str, Any]:
    """Scores of each run and K, and differences to the model with several."""
    first = seeds[0]
    scored = first.runs["several"].scores[args.longest]

    def scores_of(name: str, size: int) -> list[DocumentScores]:
        return [x.runs[name].scores[size] for x in seeds]

    def run_of(name: str, run: Run) -> dict[str, Any]:
        per_row = statistics.mean(first.flops_per_row[size] for size in run.sizes)
        return {
            "steps": run.steps,
            "trained_parameters": run.parameters,
            "training_flops": run.steps * args.rows * per_row,
            "seconds": [x.runs[name].seconds for x in seeds],
            "scores": {size: numbers_of(scores_of(name, size)) for size in run.sizes},
        }

    unrecorded = ("json", "data", "processes", "longest")
    return {
        "setting": {k: v for k, v in vars(args).items() if k not in unrecorded},
        "text": first.text,
        "restored": [x.restored for x in seeds],
        "unigram_brier_1": first.unigram,
        "scored_tokens": int(scored.counts[:, 0].sum()),
        "errors_of_text_over": f"{len(scored.groups)} {scored.unit}",
        "flops_per_row": first.flops_per_row,
        "runs": {name: run_of(name, run) for name, run in first.runs.items()},
        "differences": {
            f"several - {other}": {
                size: numbers_of(scores_of("several", size), scores_of(f"{other} {size}", size))
                for size in args.sizes
            }
            for other in ("single", "short")
        },
    }


def print_differences(found: Mapping[str, Any]) -> None:
    """The differences, a line for each K and metric."""
    for name, of_size in found["differences"].items():
        for size, metrics in of_size.items():
            for metric, one in metrics.items():
                seeds = ", ".join(f"{value:+.3f}" for value in one["by_seed"])
                print(
                    f"{name:18s}K = {size}   {metric:14s}{one['value']:+.3f} ± "
                    f"{one['error_of_text']:.3f} of the text; by seed {seeds}"
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score every model with every seed."""
    parser = argparse.ArgumentParser(description="Several chunk sizes in one model.")
    parser.add_argument("--data", type=Path, help="a prepared folder; else the embedded text")
    parser.add_argument("--vocab", type=int, default=512, help="of the embedded text")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4], help="all K")
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--tokens", type=int, default=128, help="in a row")
    parser.add_argument("--rows", type=int, default=8, help="of a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--latent", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head", choices=HEADS, default="mixture")
    parser.add_argument("--head-depth", type=int, default=2)
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--evaluation-rows", type=int, default=96)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--context", type=int, default=32, help="tokens before the first scored")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--processes", type=int, default=1, help="seeds trained at a time")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    args.longest = max(args.sizes)
    if any(args.longest % size for size in args.sizes):
        parser.error(f"--sizes must divide the largest of them; got {args.sizes}.")
    if args.tokens % args.longest or args.context % args.longest:
        parser.error(
            f"--tokens and --context must be multiples of the largest size, {args.longest}; "
            f"got {args.tokens} and {args.context}."
        )
    torch.set_num_threads(1)
    if args.processes == 1:
        seeds = [run_seed(args, seed) for seed in args.seeds]
    else:
        with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
            seeds = list(pool.map(partial(run_seed, args), args.seeds))
    found = summary(args, seeds)
    print_differences(found)
    print_results(found, CPU, args.json)


if __name__ == "__main__":
    main()
