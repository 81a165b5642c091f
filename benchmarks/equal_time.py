"""The published recipe and calmkit, trained for equal time on the same text.

One autoencoder is trained first, and its time counts for none. Then every contender gets the same
processor time on one thread: the published code's step (`published_model.py`) at two learning
rates, and calmkit, from the published choices to its own, one change a row:

    calmkit's step           raw latents, samples that start at zero, float32 by MKL
    standardized latents     unit variance in every dimension
    unit spread              samples start with unit spread
    oneDNN                   float32 products by `calmkit.training.fast_products`
    bfloat16                 autocast

Rates are constant after a warm-up, as in the paper. Each model is scored by one estimator on the
same held-out rows, and in the same space, that of the standardized latents: the last layer of a
head of raw latents is folded into it, which changes no sample.

    python benchmarks/equal_time.py --data FOLDER --json equal_time.json

FOLDER is one that `calmkit prepare` has written.
"""

import argparse
import contextlib
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from measuring import print_results
from published_model import PublishedAutoencoder, PublishedModel, PublishedStep, initialize
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows, TokenStore, TrainingBatches, evaluation_rows
from calmkit.evaluation import EvaluationSettings, evaluate, restored_share
from calmkit.heads import EnergyHead
from calmkit.metrics import Estimate
from calmkit.models import CALM, ChunkEmbedding
from calmkit.training import MatrixDecayAdamW, Progress, TrainingSettings, fast_products, fit

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Contender:
    """A way to train a model.

    Attributes:
        rate: Learning rate.
        published: Whether it is the published code.
        standardized: Whether the head learns standardised latents.
        spread: Whether samples start with unit spread, not at zero.
        fast: Whether float32 products are oneDNN's.
        precision: Of Fabric.
    """

    rate: float = 0.003
    published: bool = False
    standardized: bool = True
    spread: bool = True
    fast: bool = True
    precision: str = "32-true"


CONTENDERS = {
    "published, 0.001": Contender(rate=0.001, published=True),
    "published, 0.003": Contender(published=True),
    "calmkit's step": Contender(standardized=False, spread=False, fast=False),
    "standardized latents": Contender(spread=False, fast=False),
    "unit spread": Contender(fast=False),
    "oneDNN": Contender(),
    "bfloat16": Contender(precision="bf16-mixed"),
}


class Race:
    """What all contenders share: text, autoencoder, sizes and held-out rows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        store = TokenStore.open(args.data, "train")
        self.vocab = store.vocab_size
        self.text = TrainingBatches(
            store,
            chunk_size=args.chunk,
            positions=args.positions,
            batch_size=args.rows,
            seed=args.seed,
        )
        self.held_out = evaluation_rows(
            TokenStore.open(args.data, "validation"),
            chunk_size=args.chunk,
            positions=args.positions,
            max_rows=args.evaluation_rows,
            seed=args.seed,
        )
        torch.manual_seed(args.seed)
        self.autoencoder = MLPAutoencoder(args.chunk, self.vocab, args.latent, width=args.hidden)
        with fast_products(CPU):
            fit(
                self.autoencoder,
                lambda module, batch, generator: {
                    "loss": cast(MLPAutoencoder, module).loss_rows(batch, generator).total.mean()
                },
                self.text.batch_at,
                settings=TrainingSettings(
                    steps=args.autoencoder_steps,
                    warmup_steps=args.autoencoder_steps // 8,
                    decay_to=0.0,
                ),
                seed=args.seed,
                optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=3e-3),
                fabric=one_device("32-true"),
            )
        self.autoencoder.eval()
        self.standardized = StandardizedAutoencoder(self.autoencoder)
        self.standardized.fit_rows([self.text.batch_at(step) for step in range(16)])

    def new_model(self, autoencoder: ChunkAutoencoder) -> CALM:
        """An untrained model of calmkit on an autoencoder."""
        args = self.args
        return CALM(
            autoencoder=copy.deepcopy(autoencoder),
            input_encoder=ChunkEmbedding(self.vocab, args.chunk, args.hidden),
            backbone=TransformerBackbone(args.hidden, depth=args.depth, heads=args.heads),
            head=self.new_head(),
        )

    def new_head(self) -> EnergyHead:
        """An untrained head."""
        args = self.args
        return EnergyHead(args.hidden, args.latent, width=args.hidden, depth=args.head_depth)

    def train(self, contender: Contender) -> tuple[CALM, int]:
        """Train for the given time; the model, ready for scoring, and its number of steps."""
        torch.manual_seed(self.args.seed)
        if contender.published:
            return self._train_published(contender)
        model = self.new_model(self.standardized if contender.standardized else self.autoencoder)
        head = cast(EnergyHead, model.head)
        if not contender.spread:
            nn.init.zeros_(cast(nn.Linear, head.output[2]).weight)
        steps = train_for(
            self.args.seconds,
            model,
            self.text.batch_at,
            contender,
            warmup=self.args.warmup,
            seed=self.args.seed,
        )
        return model if contender.standardized else self.in_standard_space(model), steps

    def _train_published(self, contender: Contender) -> tuple[CALM, int]:
        args = self.args
        inner = -(-args.hidden // 3) * 8
        autoencoder = PublishedAutoencoder(
            args.chunk, self.vocab, args.latent, width=args.hidden, inner=inner
        ).copy(self.autoencoder)
        model = PublishedModel(
            autoencoder, self.new_head(), depth=args.depth, heads=args.heads, inner=inner
        )
        initialize(model, but=autoencoder)
        step = PublishedStep(model, self.text.batch_at, rate=contender.rate, warmup=args.warmup)
        began = time.process_time()
        while time.process_time() - began < args.seconds:
            step()
        ours = self.new_model(self.autoencoder)
        model.give_weights(ours)
        return self.in_standard_space(ours), step.steps

    @torch.no_grad()
    def in_standard_space(self, model: CALM) -> CALM:
        """The same model, whose head draws standardised latents."""
        found = self.new_model(self.standardized)
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith("autoencoder.")}
        found.load_state_dict(weights, strict=False)
        last = cast(nn.Linear, cast(EnergyHead, found.head).output[2])
        shift, scale = (cast(Tensor, getattr(self.standardized, x)) for x in ("shift", "scale"))
        last.weight /= scale[:, None]
        last.bias.sub_(shift).div_(scale)
        return found

    def score(self, model: CALM) -> dict[str, Any]:
        """Energy score and Brier-1 in per cent on the held-out rows, with standard errors."""
        args = self.args
        settings = EvaluationSettings(
            rows=args.evaluation_rows, draws=args.draws, min_context=args.context, bootstrap=200
        )
        with fast_products(CPU):
            found = evaluate(model, self.held_out, settings, seed=args.seed, highest_order=2)
        estimates = {
            "energy_score": cast(Estimate, found.energy_score),
            "brier_1": found.brier.brier[0],
        }
        return {
            name: {"value": x.value, "standard_error": x.standard_error}
            for name, x in estimates.items()
        }


class TimeUp(Exception):
    """Ends a training."""


def train_for(
    seconds: float,
    model: CALM,
    batch_at: Callable[[int], ChunkBatch],
    contender: Contender,
    *,
    warmup: int,
    seed: int,
) -> int:
    """Train a model of calmkit for so many processor seconds; the number of steps."""
    began, steps = time.process_time(), 0

    def progress(done: Progress) -> None:
        nonlocal steps
        steps = done.step
        if time.process_time() - began >= seconds:
            raise TimeUp

    products = fast_products(CPU) if contender.fast else contextlib.nullcontext()
    with products, contextlib.suppress(TimeUp):
        fit(
            model,
            lambda module, batch, generator: {
                "loss": cast(CALM, module).loss(batch, generator).total
            },
            batch_at,
            settings=TrainingSettings(steps=10**9, warmup_steps=warmup),
            seed=seed,
            optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=contender.rate),
            fabric=one_device(contender.precision),
            progress=progress,
        )
    return steps


def one_device(precision: str) -> Fabric:
    """The CPU."""
    return Fabric(accelerator="cpu", devices=1, precision=cast(Any, precision))


def held_out_tokens(rows: EvaluationRows) -> int:
    """Tokens of text in some rows."""
    return int(rows.batch.real.sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score every contender; the file is written after each."""
    parser = argparse.ArgumentParser(description="Published recipe and calmkit at equal time.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the processor, for each")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    parser.add_argument("--chunk", type=int, default=2, help="K")
    parser.add_argument("--positions", type=int, default=64, help="chunks in a row")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--latent", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-depth", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--evaluation-rows", type=int, default=128)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--context", type=int, default=16, help="chunks before the first scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    race = Race(args)
    results: dict[str, Any] = {
        "setting": {
            name: value for name, value in vars(args).items() if name not in ("json", "data")
        },
        "vocab": race.vocab,
        "restored": restored_share(race.autoencoder, race.held_out.batch),
        "held_out_tokens": held_out_tokens(race.held_out),
        "contenders": {},
    }
    for name in args.contenders:
        model, steps = race.train(CONTENDERS[name])
        scores = race.score(model)
        results["contenders"][name] = {"steps": steps, **scores}
        score, brier = scores["energy_score"], scores["brier_1"]
        print(
            f"{name:22s}{steps:6d} steps   energy score {score['value']:.3f} ± "
            f"{score['standard_error']:.3f}   Brier-1 {brier['value']:.2f} ± "
            f"{brier['standard_error']:.2f} %",
            flush=True,
        )
        if args.json is not None:
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_results(results, CPU, args.json)


if __name__ == "__main__":
    main()
