r"""What a head loses: heads and other readouts, trained on the frozen states of a softmax model.

A model of latents can be worse than a softmax because its loss trains worse states, or because its
head makes less of them. Here all readouts get the same states, those of a trained softmax model
over tokens (K = 1), and the same steps on the same text. From one to the next, one thing changes:

    softmax            a new output layer                        cross entropy
    softmax, Brier     a new output layer                        exact Brier score
    narrow             through L dimensions, new output layer    cross entropy
    narrow, Brier      through L dimensions, new output layer    exact Brier score
    decoder            through L dimensions, frozen decoder      cross entropy of its tokens
    energy, flow, ...  heads: a law of the latents in L dimensions, draws decoded
    tied mixture       a head with one component for each token, shared by all states
    trigram            no readout: draws of a table of trigrams, counted in the training text
    trigram, decoded   the same draws, encoded, drawn from the posterior, and decoded

L is the latent size of an autoencoder of single tokens, whose decoder it is. The readouts that are
neither heads nor tables predict one point and have the probabilities of tokens in closed form.
Brier-1 is exact for them, and estimated from draws for the others; differences are paired over
documents. "trigram, decoded" is an oracle: what a head scores that knows the posteriors of all
tokens which followed the same two tokens in training, smoothed as the table is.

    python benchmarks/frozen_states.py --softmax MODEL --data FOLDER --json frozen_states.json

MODEL is the folder of a softmax model, as a comparison with `--softmax true` leaves it, and FOLDER
one that `calmkit prepare` has written with the same tokenizer.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from measuring import print_results
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import calmkit
from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.data import TokenStore, TrainingBatches, evaluation_rows
from calmkit.devices import fast_products
from calmkit.evaluation import NgramModel, restored_share
from calmkit.heads import (
    EnergyHead,
    FlowHead,
    GaussianHead,
    Head,
    MixtureHead,
    TiedMixtureHead,
)
from calmkit.metrics import DocumentScores, brier, paired_difference, softmax_brier
from calmkit.models import TokenLM
from calmkit.nn import ResidualMLP
from calmkit.training import MatrixDecayAdamW, Objective, TrainingSettings, fit

CPU = torch.device("cpu")
ROWS_AT_ONCE = 8
NEW_HEAD: dict[str, Callable[..., Head]] = {
    "energy": EnergyHead,
    "flow": FlowHead,
    "mixture": MixtureHead,
    "tied mixture": TiedMixtureHead,
    "Gaussian": GaussianHead,
}
TABLES = ("trigram", "trigram, decoded")
NAMES = ("softmax", "softmax, Brier", "narrow", "narrow, Brier", "decoder", *NEW_HEAD, *TABLES)


def widened(x: Tensor) -> Tensor:
    """In float32 at least; autocast leaves it lower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class TokenReadout(nn.Module):
    """Logits of the next token, trained by cross entropy or by the Brier score."""

    def __init__(
        self, network: nn.Module, output: Callable[[Tensor], Tensor], *, by_brier: bool
    ) -> None:
        """Set the two parts.

        Args:
            network: Trained; reads states.
            output: From its result to logits. A module is trained too, a method is not.
            by_brier: Whether the loss is the Brier score, instead of the cross entropy.
        """
        super().__init__()
        self.network, self.output, self.by_brier = network, output, by_brier

    def log_probabilities(self, states: Tensor) -> Tensor:
        """Of all tokens."""
        return widened(self.output(self.network(states))).log_softmax(dim=-1)

    def loss(self, states: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over all positions."""
        found = self.log_probabilities(states).flatten(0, 1)
        if not self.by_brier:
            return cross_entropy(found, tokens.flatten())
        chosen = found.gather(-1, tokens.flatten()[:, None]).exp()
        return ((2 * found).exp().sum(dim=-1) - 2 * chosen[:, 0]).mean()

    def brier(self, states: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Brier-1 of each position, exact."""
        return softmax_brier(self.log_probabilities(states), tokens)


class HeadReadout(nn.Module):
    """A head; its autoencoder is frozen and belongs to all readouts."""

    def __init__(self, head: Head, autoencoder: ChunkAutoencoder, draws: int) -> None:
        super().__init__()
        self.head, self.draws = head, draws
        self.encode, self.decode = autoencoder.encode, autoencoder.decode_tokens

    def loss(self, states: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over all positions."""
        with torch.no_grad():
            target = self.encode(tokens[..., None])
        return self.head.loss(states, target, generator).mean()

    def brier(self, states: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Brier-1 of each position, from draws."""
        drawn = [self.decode(z) for z in self.head.sample(states, self.draws, generator)]
        return brier(torch.stack(drawn), tokens[..., None])


class TableReadout(nn.Module):
    """Draws of a table of trigrams, as tokens or as latents that are decoded; never trained."""

    def __init__(
        self, table: NgramModel, autoencoder: ChunkAutoencoder | None, draws: int
    ) -> None:
        super().__init__()
        self.table, self.draws = table, draws
        self.through = (
            None if autoencoder is None else (autoencoder.encode, autoencoder.decode_tokens)
        )

    def brier(self, before: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Brier-1 of each position, from draws.

        Args:
            before: The two tokens before each position, -1 where there is none,
                (rows, positions, 2).
            tokens: Those to be predicted, (rows, positions).
            generator: Seeds the draws.
        """
        contexts = before.expand(self.draws, *before.shape).reshape(-1, before.shape[-1])
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        drawn = torch.from_numpy(self.table.draw(contexts.numpy(), 1, numbers))
        drawn = drawn.reshape(self.draws, *tokens.shape, 1)
        if self.through is not None:
            encode, decode = self.through
            drawn = torch.stack([decode(encode(x).sample(1, generator)[0]) for x in drawn])
        return brier(drawn, tokens[..., None])


Readout = TokenReadout | HeadReadout | TableReadout


class Study:
    """What all readouts share: the softmax model, text, autoencoder and held-out rows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.softmax = calmkit.load(args.softmax, TokenLM).requires_grad_(False)
        chunks = {"chunk_size": 1, "positions": args.positions}
        self.text = TrainingBatches(
            TokenStore.open(args.data, "train"), **chunks, batch_size=args.rows, seed=args.seed
        )
        self.held_out = evaluation_rows(
            TokenStore.open(args.data, "validation"),
            **chunks,
            max_rows=args.evaluation_rows,
            seed=0,
        )
        torch.manual_seed(args.seed)
        module = MLPAutoencoder(1, self.softmax.vocab_size, args.latent, width=args.width)
        self.fit(
            module,
            lambda module, batch, generator: {
                "loss": cast(MLPAutoencoder, module).loss_rows(batch, generator).total.mean()
            },
            steps=args.autoencoder_steps,
            rate=3e-3,
        )
        self.autoencoder = StandardizedAutoencoder(module.eval())
        batches = [self.text.batch_at(step) for step in range(16)]
        self.autoencoder.fit_rows(batches)
        self.autoencoder.requires_grad_(False)
        self.seen = self.autoencoder.encode(torch.cat([batch.tokens for batch in batches]))

    def fit(self, module: nn.Module, objective: Objective, *, steps: int, rate: float) -> None:
        """Train a module on the text."""
        with fast_products(CPU):
            fit(
                module,
                objective,
                self.text.batch_at,
                settings=TrainingSettings(
                    steps=steps, warmup_steps=math.ceil(steps / 8), decay_to=0.0
                ),
                seed=self.args.seed,
                optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=rate),
                fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
            )

    @torch.no_grad()
    def states(self, batch: ChunkBatch) -> tuple[Tensor, Tensor]:
        """States (rows, positions - 1, hidden), and the tokens that they predict."""
        states = self.softmax.backbone(self.softmax.input_encoder(batch.tokens, batch.real))
        return widened(states[:, :-1]), batch.tokens[:, 1:, 0]

    @functools.cached_property
    def trigrams(self) -> NgramModel:
        """Those of the training text."""
        return NgramModel.fit(TokenStore.open(self.args.data, "train"), order=3)

    def inputs(self, readout: Readout, batch: ChunkBatch) -> tuple[Tensor, Tensor]:
        """What a readout reads at each position but the first, and the token there."""
        if not isinstance(readout, TableReadout):
            return self.states(batch)
        tokens = batch.tokens[..., 0]
        return pad(tokens[:, :-1], (1, 0), value=-1).unfold(1, 2, 1), tokens[:, 1:]

    def new_readout(self, name: str) -> Readout:
        """An untrained readout."""
        args, hidden, vocab = self.args, self.softmax.backbone.hidden_size, self.softmax.vocab_size
        torch.manual_seed(args.seed)
        if name in NEW_HEAD:
            own = {"components": vocab} if name == "tied mixture" else {}
            head = NEW_HEAD[name](hidden, args.latent, width=args.width, **own)
            head.start_from(self.seen, torch.Generator().manual_seed(args.seed))
            return HeadReadout(head, self.autoencoder, args.draws)
        if name in TABLES:
            autoencoder = self.autoencoder if name == "trigram, decoded" else None
            return TableReadout(self.trigrams, autoencoder, args.draws)
        kind, _, rule = name.partition(", ")
        by_brier = rule == "Brier"
        if kind == "softmax":
            return TokenReadout(
                nn.Identity(), nn.Linear(hidden, vocab, bias=False), by_brier=by_brier
            )
        narrow = ResidualMLP(hidden, args.latent, width=args.width, depth=3)
        if kind == "narrow":
            return TokenReadout(narrow, nn.Linear(args.latent, vocab), by_brier=by_brier)
        decode = self.autoencoder.decode
        return TokenReadout(narrow, lambda latents: decode(latents)[..., 0, :], by_brier=by_brier)

    def train(self, readout: Readout) -> None:
        """Train a readout on the states; a table has counted already."""
        if isinstance(readout, TableReadout):
            return
        self.fit(
            readout,
            lambda module, batch, generator: {
                "loss": cast(TokenReadout, module).loss(*self.states(batch), generator)
            },
            steps=self.args.steps,
            rate=self.args.rate,
        )

    @torch.no_grad()
    def scores(self, readout: Readout) -> DocumentScores:
        """Brier-1 in per cent on the held-out rows, as sums over documents."""
        readout.eval()
        generator = torch.Generator().manual_seed(self.args.seed)
        batch, context, sums, counts = self.held_out.batch, self.args.context, [], []
        with fast_products(CPU):
            for begin in range(0, len(batch.lengths), ROWS_AT_ONCE):
                part = batch.rows(slice(begin, begin + ROWS_AT_ONCE))
                read, tokens = (x[:, context - 1 :] for x in self.inputs(readout, part))
                scored = part.real[:, context:, 0]
                values = readout.brier(read, tokens, generator).double() * scored
                sums.append(100 * values.sum(dim=1))
                counts.append(scored.double().sum(dim=1))
        documents, group = self.held_out.document.unique(return_inverse=True)
        sums, counts = (
            torch.zeros(len(documents), 1).double().index_add_(0, group, torch.cat(x)[:, None])
            for x in (sums, counts)
        )
        return DocumentScores(("brier_1",), sums, counts, tuple(documents.tolist()), "documents")


def estimate(scores: DocumentScores, reference: DocumentScores | None = None) -> dict[str, Any]:
    """Value and standard error, of the difference to a reference if there is one."""
    if reference is None:
        found = scores.estimate()[0]
    else:
        found = paired_difference(scores, reference)[0]
    return {"value": found.value, "standard_error": found.standard_error}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score every readout; the file is written after each."""
    parser = argparse.ArgumentParser(description="Readouts of the frozen states of a softmax.")
    parser.add_argument("--softmax", type=Path, required=True, help="folder of a softmax model")
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--readouts", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--positions", type=int, default=256, help="tokens in a row")
    parser.add_argument("--rows", type=int, default=8, help="of a step")
    parser.add_argument("--latent", type=int, default=32, help="L")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--evaluation-rows", type=int, default=96)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--context", type=int, default=64, help="tokens before the first scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = Study(args)
    trained = TokenReadout(nn.Identity(), study.softmax.logits, by_brier=False)
    scores = {"as trained": study.scores(trained)}
    results: dict[str, Any] = {
        "setting": {
            k: v for k, v in vars(args).items() if k not in ("json", "data", "softmax", "readouts")
        },
        "vocab": study.softmax.vocab_size,
        "restored": restored_share(study.autoencoder, study.held_out.batch),
        "as trained": {"brier_1": estimate(scores["as trained"])},
        "readouts": {},
    }
    print(f"softmax as trained: Brier-1 {results['as trained']['brier_1']}", flush=True)
    for name in args.readouts:
        began = time.process_time()
        readout = study.new_readout(name)
        study.train(readout)
        seconds = time.process_time() - began
        scores[name] = study.scores(readout)
        found, change = estimate(scores[name]), estimate(scores[name], scores["as trained"])
        results["readouts"][name] = {"brier_1": found, "difference": change, "seconds": seconds}
        print(
            f"{name:16s}{seconds:6.0f} s   Brier-1 {found['value']:.2f} ± "
            f"{found['standard_error']:.2f} %, difference {change['value']:+.2f} ± "
            f"{change['standard_error']:.2f}",
            flush=True,
        )
        if args.json is not None:
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_results(results, CPU, args.json)


if __name__ == "__main__":
    main()
