r"""Does BrierLM order models of real text as cross entropy does?

Along one training both improve; the question is whether they agree late in a training, and between
kinds of model of equal cross entropy. On the same held-out rows, with errors over documents, this
measures

- a softmax at checkpoints of its training: cross entropy, Brier-1 to 4 from its probabilities, and
  beside these the estimate from draws that the others get (`drawn_brier.py`);
- heads of K = 1 trained on the frozen states of its last checkpoint: the bridge between a softmax
  and a continuous model, since only the last layer differs. Bounds of their nats are from weighted
  draws (`chunk_nats.py`), of two numbers of draws, so that one sees how tight they are;
- on request an energy-trained model of any K at checkpoints of its training, and heads with a
  likelihood on its frozen states, since an energy head itself has none.

    python benchmarks/brier_and_nats.py --data PREPARED --softmax config.yaml STEPS \
        --calm config.yaml STEPS --folder RUN --json nats.json --plot nats.png

A config is one that `calmkit train` or `compare` saved with a model; STEPS is the folder with the
checkpoints of a training, `step-*`.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from brier_and_nats_report import draw_plot, report, show
from chunk_nats import chunk_nats
from drawn_brier import drawn_brier
from kept_rows import KeptRows
from lightning_fabric import Fabric
from measuring import environment, print_results
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.config import build
from calmkit.data import EvaluationRows, TokenStore, TrainingBatches, evaluation_rows
from calmkit.devices import fast_products
from calmkit.evaluation import EvaluationSettings, evaluate, posteriors_of
from calmkit.evaluation.scored_text import find_targets
from calmkit.heads import EnergyHead, GaussianHead, Head, MixtureHead
from calmkit.metrics import DocumentScores
from calmkit.models import CALM, LanguageModel, TokenLM
from calmkit.nn import evaluation_view
from calmkit.training import MatrixDecayAdamW, TrainingSettings, fit

CPU = torch.device("cpu")
HEADS: dict[str, Callable[..., Head]] = {
    "Gaussian": GaussianHead,
    "mixture": MixtureHead,
    "energy": EnergyHead,
}
_BRIER = tuple(f"brier_{n}" for n in range(1, 5))
_BATCHES_FOR_STATISTICS = 8
# What the numbers of a model do not depend on, beyond its name.
_OF_OTHERS = (
    "softmax_steps", "calm_steps", "heads", "bridges", "resamples", "steps", "checkpoints",
)  # fmt: skip

Row = dict[str, Any]


class Study:
    """The text, and how models are trained and measured on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.text = TokenStore.open(args.data, "train")
        self._held_out = TokenStore.open(args.data, "validation")

    def batch_at(self, chunk: int) -> Callable[[int], ChunkBatch]:
        """Training rows of chunks of this size."""
        args = self.args
        batches = TrainingBatches(
            self.text,
            chunk_size=chunk,
            positions=args.length // chunk,
            batch_size=args.batch,
            seed=args.seed,
        )
        return batches.batch_at

    def rows(self, chunk: int) -> EvaluationRows:
        """The held-out rows, the same text for every chunk size."""
        args = self.args
        return evaluation_rows(
            self._held_out,
            chunk_size=chunk,
            positions=args.length // chunk,
            max_rows=args.rows,
            seed=args.seed,
        )

    def fit(
        self,
        module: nn.Module,
        loss: Callable[[nn.Module, ChunkBatch, Generator], Tensor],
        chunk: int,
        steps: int,
        rate: float,
        name: str,
    ) -> None:
        """Train what has a gradient, from the newest checkpoint in the folder of this name."""
        fit(
            module,
            lambda module, batch, generator: {"loss": loss(module, batch, generator)},
            self.batch_at(chunk),
            settings=TrainingSettings(
                steps=steps,
                warmup_steps=min(50, steps),
                decay_to=0.1,
                checkpoint_every=max(1, steps // self.args.checkpoints),
                keep_checkpoints=self.args.checkpoints + 1,
            ),
            seed=self.args.seed,
            optimizer=partial(MatrixDecayAdamW, lr=rate),
            fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
            directory=self.args.folder / name,
            loggers=[],
        )

    @functools.cached_property
    def autoencoder(self) -> StandardizedAutoencoder:
        """A trained autoencoder of single tokens, whose latents have unit variance."""
        args = self.args
        torch.manual_seed(args.seed)
        inner = MLPAutoencoder(1, self.text.vocab_size, args.latent, width=args.width)
        self.fit(
            inner,
            lambda module, batch, generator: (
                cast(ChunkAutoencoder, module).loss_rows(batch, generator).total.mean()
            ),
            1,
            args.autoencoder_steps,
            3e-3,
            "autoencoder",
        )
        wrapped = StandardizedAutoencoder(inner.eval())
        batch_at = self.batch_at(1)
        wrapped.fit_rows([batch_at(step) for step in range(_BATCHES_FOR_STATISTICS)])
        return wrapped

    def head_on(self, model: LanguageModel, name: str, kind: str, step: int) -> list[Row]:
        """Measure a checkpoint of a head that is trained on the frozen states of a model."""
        args, build_head = self.args, HEADS[name]
        name = f"{kind}, {args.steps} steps"
        autoencoder = model.autoencoder if isinstance(model, CALM) else self.autoencoder
        torch.manual_seed(args.seed)
        sizes = (model.backbone.hidden_size, autoencoder.latent_size)
        frozen = model.requires_grad_(False)
        calm = CALM(
            autoencoder=autoencoder,
            input_encoder=frozen.input_encoder,
            backbone=frozen.backbone,
            head=build_head(*sizes, width=args.width, depth=args.head_depth),
        )
        self.fit(
            calm,
            lambda module, batch, generator: cast(CALM, module).loss(batch, generator).total,
            model.chunk_size,
            args.steps,
            args.rate,
            name,
        )
        load(calm, args.folder / name, step)
        return [self.measure(calm.eval(), kind, step)]

    def checkpoint(self, config: Path, steps: Path, kind: str, step: int) -> list[Row]:
        """Measure a checkpoint of a training that is given."""
        model = build(config).eval()
        load(model, steps, step)
        return [self.measure(model, kind, step)]

    def measure(self, model: LanguageModel, kind: str, step: int) -> Row:
        """One line of the result: scores by document."""
        print(f"{kind}, step {step} ...", file=sys.stderr, flush=True)
        rows = self.rows(model.chunk_size)
        with fast_products(CPU):
            if isinstance(model, TokenLM):
                scores = self._of_softmax(model, rows)
            else:
                scores = self._of_calm(cast(CALM, model), rows)
        return {
            "kind": kind, "chunk": model.chunk_size, "step": step, "scores": scores.to_dict()
        }  # fmt: skip

    def _of_softmax(self, model: TokenLM, rows: EvaluationRows) -> DocumentScores:
        drawn, known = self._drawn(model, rows)
        known, drawn = known.select("nats", *_BRIER), drawn.select(*_BRIER)
        names = (*known.names, *(f"drawn_{name}" for name in _BRIER))
        sums, counts = (
            torch.cat([getattr(one, x) for one in (known, drawn)], dim=1)
            for x in ("sums", "counts")
        )
        return DocumentScores(names, sums, counts, known.groups, known.unit)

    def _of_calm(self, model: CALM, rows: EvaluationRows) -> DocumentScores:
        args, chunk = self.args, model.chunk_size
        if chunk == 1:
            (found,) = self._drawn(model, rows)
        else:
            settings = EvaluationSettings(
                rows=args.rows,
                draws=args.draws,
                min_context=args.context // chunk,
                bootstrap=10,  # the report has its own
            )
            found = evaluate(model, rows, settings, seed=args.seed).documents
        found = found.select(*_BRIER, "hit_1")
        model = evaluation_view(model)
        targets = find_targets(rows.batch.tokens, rows.batch.real, args.context // chunk)
        whole = targets.is_text[:, :chunk].all(dim=-1)
        row, place = targets.row[whole], targets.place[whole]
        with torch.no_grad():
            cond = model.hidden_states(rows.batch)[row, place - 1]
        nats = chunk_nats(
            model,
            cond,
            targets.tokens[whole, :chunk],
            posteriors_of(model.autoencoder, rows.batch)[row, place],
            draws=args.latent_draws,
            generator=Generator().manual_seed(args.seed),
        )
        columns = {
            "nats": nats.many, "nats_few": nats.few, "nats_by_draws": nats.by_draws,
        }  # fmt: skip
        document, chunks = rows.document[row], torch.ones_like(nats.many)
        for name, values in columns.items():
            found = found.with_metric(name, values, chunk * chunks, document)
        return found.with_metric("probability", nats.probability, chunks, document)

    def _drawn(self, model: LanguageModel, rows: EvaluationRows) -> list[DocumentScores]:
        args = self.args
        return drawn_brier(model, rows, min_context=args.context, draws=args.draws, seed=args.seed)


def load(model: nn.Module, steps: Path, step: int) -> None:
    """Put the weights of a checkpoint into a model."""
    model.load_state_dict(load_file(steps / f"step-{step:06d}" / "model.safetensors"))


def steps_in(folder: Path, wanted: Sequence[int]) -> list[int]:
    """The wanted checkpoints, or all that are there."""
    there = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
    return [step for step in there if not wanted or step in wanted]


def run(args: argparse.Namespace, kept: KeptRows) -> list[Row]:
    """Measure everything that is not kept."""
    study = Study(args)
    every = args.steps // args.checkpoints
    rows: list[Row] = []
    for given, wanted, heads in (
        (args.softmax, args.softmax_steps, args.heads),
        (args.calm, args.calm_steps, args.bridges),
    ):
        if given is None:
            continue
        config, steps = given
        model = build(config).eval()
        chosen = steps_in(steps, wanted)
        own = "softmax" if isinstance(model, TokenLM) else f"energy, K = {model.chunk_size}"
        for step in chosen:
            rows += kept.get(
                f"{own}, step {step}", partial(study.checkpoint, config, steps, own, step)
            )
        load(model, steps, chosen[-1])
        for name in heads:
            kind = f"{name}, K = {model.chunk_size}"
            for step in range(every, args.steps + 1, every):
                of_head = partial(study.head_on, model, name, kind, step)
                rows += kept.get(f"{kind}, step {step} of {args.steps}", of_head)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="BrierLM against cross entropy.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument(
        "--softmax", type=Path, nargs=2, required=True, metavar=("CONFIG", "STEPS")
    )
    parser.add_argument("--softmax-steps", type=int, nargs="*", default=[], help="default: all")
    parser.add_argument("--calm", type=Path, nargs=2, metavar=("CONFIG", "STEPS"))
    parser.add_argument("--calm-steps", type=int, nargs="*", default=[], help="default: all")
    parser.add_argument(
        "--heads", nargs="*", choices=HEADS, default=list(HEADS), metavar="HEAD", help="at K = 1"
    )
    parser.add_argument(
        "--bridges", nargs="*", choices=["Gaussian", "mixture"], default=["Gaussian", "mixture"],
        help="on the states of the energy-trained model",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=800, help="of each head's training")
    parser.add_argument("--checkpoints", type=int, default=4, help="in each of these")
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of heads")
    parser.add_argument("--width", type=int, default=256, help="of autoencoder and heads")
    parser.add_argument("--head-depth", type=int, default=3)
    parser.add_argument("--latent", type=int, default=32, help="dimensions at K = 1")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--context", type=int, default=64, help="tokens before the first scored")
    parser.add_argument("--rows", type=int, default=96, help="of held-out text")
    parser.add_argument("--draws", type=int, default=8, help="at each place, for Brier scores")
    parser.add_argument("--latent-draws", type=int, default=48, help="S, for nats")
    parser.add_argument("--resamples", type=int, default=1000, help="of the documents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw scores against nats in this PNG")
    parser.add_argument(
        "--folder", type=Path, required=True,
        help="for checkpoints and each model's numbers: a stopped run goes on from there",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    of_files = ("data", "softmax", "calm", "json", "plot", "folder")
    setting = {name: value for name, value in vars(args).items() if name not in of_files}
    of_a_model = {name: value for name, value in setting.items() if name not in _OF_OTHERS}
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        kept = KeptRows(args.folder / "kept.json", {**of_a_model, **environment(CPU)})
    except ValueError as error:
        parser.error(str(error))
    rows = run(args, kept)
    results: dict[str, Any] = {
        "setting": setting,
        **report(rows, resamples=args.resamples, seed=args.seed),
    }
    show(results)
    print_results(results, CPU, args.json)
    if args.plot is not None:
        draw_plot(results["models"], args.plot)


if __name__ == "__main__":
    main()
