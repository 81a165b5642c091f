r"""Does BrierLM rank models as their distance to the truth does, and as cross entropy does?

The language is synthetic, and the law Q of the next chunk after any text is known
(`synthetic_language.py`). Models with each head are trained on it at K = 1, 2, 4; at checkpoints
along each training, m chunks are drawn after each of some held-out texts, and their distances to Q
are measured (`law_distances.py`); the excess of a model is KL / K, what the cross entropy per
token has above the truth's. The draws are finite, and the errors of that are small at K = 1, not
at K = 4. Two rows show them: *truth*, as many draws of Q itself, is the least that can be found;
*perfect head* takes those chunks through the autoencoder (posterior, a draw of it, decoder), the
least for its heads.

BrierLM is that of `evaluate` on held-out text, beside the best expected value that any model can
have at the same places; noise can lift it above that. Its standard error is from a bootstrap over
the texts. *Expected BrierLM* has the noise of the text taken out: drawn are r continuations of
four tokens, and Brier-1 to 4 are means over all that may come, by the truth. TokenLM shows its
probabilities: its distances are exact, and its KL is the excess of its cross entropy over the
truth's.

    python benchmarks/known_truth.py --json truth.json --plot truth.png --keep kept.json
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from head_rates import every_head
from kept_rows import KeptRows
from known_truth_report import correlations, draw_plot, show
from known_world import World, draw_batch
from measuring import environment, print_results
from synthetic_language import SyntheticLanguage, entropy
from torch import Generator, Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead, Head
from calmkit.metrics import reconstructed_tokens
from calmkit.models import CALM, ChunkEmbedding, LanguageModel, TokenLM
from calmkit.scoring import EnergyScore
from calmkit.training import MatrixDecayAdamW, TrainingSettings, fit

CPU = torch.device("cpu")
# Further settings of the energy head, so that it is seen at its best and at less.
ENERGY: dict[str, Callable[..., Head]] = {
    "EnergyHead": EnergyHead,
    "EnergyHead, N = 2": partial(EnergyHead, num_samples=2),
    "EnergyHead, alpha = 0.5": partial(EnergyHead, rule=EnergyScore(0.5)),
}
_STANDARDIZE_ON_BATCHES = 8


def train(
    args: argparse.Namespace,
    module: nn.Module,
    batch_at: Callable[[int], ChunkBatch],
    steps: int,
    measure: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> list[tuple[int, Mapping[str, float]]]:
    """Train a module, and measure it at evenly spaced checkpoints."""
    from lightning_fabric import Fabric

    def objective(
        module: nn.Module, batch: ChunkBatch, generator: Generator
    ) -> Mapping[str, Tensor]:
        if isinstance(module, ChunkAutoencoder):
            return {"loss": module.loss(batch.tokens, generator).total.mean()}
        return {"loss": cast(LanguageModel, module).loss(batch, generator).total}

    result = fit(
        module,
        objective,
        batch_at,
        settings=TrainingSettings(
            steps=steps,
            warmup_steps=min(20, steps),
            decay_to=0.1,
            validate_every=0 if measure is None else max(1, steps // args.checkpoints),
        ),
        seed=args.seed,
        optimizer=partial(MatrixDecayAdamW, lr=args.learning_rate),
        validate=measure,
        fabric=Fabric(accelerator="cpu", devices=1),
        loggers=[],
    )
    module.eval()
    return list(result.validation)


def train_autoencoder(
    args: argparse.Namespace, language: SyntheticLanguage, size: int
) -> StandardizedAutoencoder:
    """The autoencoder of one chunk size, with latents of unit variance."""
    torch.manual_seed(args.seed)
    autoencoder = MLPAutoencoder(size, language.vocab_size, args.latent, width=args.hidden)
    batch_at = partial(draw_batch, args, language, size, texts=args.batch)
    train(args, autoencoder, batch_at, args.autoencoder_steps)
    wrapped = StandardizedAutoencoder(autoencoder)
    tokens = torch.cat([batch_at(step).tokens for step in range(_STANDARDIZE_ON_BATCHES)])
    return wrapped.fit(tokens).eval()


def build_head(args: argparse.Namespace, name: str) -> Head:
    """A public head or a setting of the energy head, of the size asked for."""
    build = (every_head() | ENERGY)[name]
    sizes = {"width": args.hidden, "depth": 2}
    takes = inspect.signature(build).parameters
    return build(args.hidden, args.latent, **{k: v for k, v in sizes.items() if k in takes})


def measure_chunk_size(
    args: argparse.Namespace, language: SyntheticLanguage, size: int, kept: KeptRows
) -> dict[str, Any]:
    """Train every model at one chunk size that is not kept, and measure it on the way."""
    world = World(args, language, size)
    autoencoder = train_autoencoder(args, language, size)
    tokens = world.rows.batch.tokens
    found: dict[str, Any] = {
        "chunk": size,
        "entropy": float(entropy(world.law).mean()) / size,
        "brier_lm_optimum": world.optimum,
        "brier_optimum": world.optimal_brier,
        "expected_brier_lm_optimum": world.expected_optimum,
        "autoencoder_accuracy": float((reconstructed_tokens(autoencoder, tokens)).double().mean()),
    }
    rows: list[dict[str, Any]] = [
        {"model": "truth", **world.measure_draws(world.true_chunks())},
        {"model": "perfect head", **world.measure_draws(world.perfect_chunks(autoencoder))},
    ]
    for name in [*args.heads, *(["TokenLM"] if size == 1 else [])]:
        run = partial(measure_model, args, language, world, autoencoder, name)
        rows += kept.get(f"K = {size}: {name}", run)
    return found | {"rows": rows}


def measure_model(
    args: argparse.Namespace,
    language: SyntheticLanguage,
    world: World,
    autoencoder: ChunkAutoencoder,
    name: str,
) -> list[dict[str, Any]]:
    """Train a model, and measure it at checkpoints."""
    print(f"K = {world.size}: {name} ...", file=sys.stderr, flush=True)
    torch.manual_seed(args.seed)
    backbone = TransformerBackbone(args.hidden, depth=2, heads=4)
    if name == "TokenLM":
        model, measure = TokenLM(language.vocab_size, backbone=backbone), world.measure_softmax
    else:
        embedding = ChunkEmbedding(language.vocab_size, world.size, args.hidden)
        parts = {"autoencoder": autoencoder, "input_encoder": embedding, "backbone": backbone}
        model, measure = CALM(**parts, head=build_head(args, name)), world.measure_calm
    batch_at = partial(draw_batch, args, language, world.size, texts=args.batch)
    points = train(args, model, batch_at, args.steps, measure)
    return [{"model": name, "step": step, **values} for step, values in points]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="BrierLM where the truth is known.")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 2, 4], help="each K")
    parser.add_argument(
        "--heads", nargs="+", choices=[*every_head(), *list(ENERGY)[1:]],
        default=[*ENERGY, "GaussianHead", "MixtureHead", "FlowHead"], metavar="HEAD",
        help="public heads, and settings of the energy head",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=300, help="of each model's training")
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--checkpoints", type=int, default=5, help="in each training")
    parser.add_argument("--batch", type=int, default=16, help="texts in a step")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--context", type=int, default=32, help="tokens before BrierLM's first")
    parser.add_argument("--hidden", type=int, default=64, help="features of all parts")
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--rows", type=int, default=64, help="held-out texts")
    parser.add_argument("--draws", type=int, default=2048, help="m, after each held-out text")
    parser.add_argument("--brier-draws", type=int, default=4, help="at each place of BrierLM")
    parser.add_argument("--branches", type=int, default=128, help="r, of expected BrierLM")
    parser.add_argument("--states", type=int, default=6, help="of the language")
    parser.add_argument("--vocab", type=int, default=8, help="of the language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw BrierLM in this PNG")
    parser.add_argument(
        "--keep", type=Path, help="file for each model's numbers: a stopped run goes on from there"
    )
    args = parser.parse_args(arguments)
    for name in ("length", "context"):
        if any(getattr(args, name) % size for size in args.chunks):
            parser.error(f"--{name} must be a multiple of each of --chunks {args.chunks}.")
    torch.set_num_threads(1)
    language = SyntheticLanguage.seeded(args.seed, states=args.states, vocab=args.vocab)
    setting = {k: v for k, v in vars(args).items() if k not in ("json", "plot", "keep")}
    of_a_model = {k: v for k, v in setting.items() if k not in ("chunks", "heads")}
    try:
        kept = KeptRows(args.keep, {**of_a_model, **environment(CPU)})
    except ValueError as error:
        parser.error(str(error))
    worlds = [measure_chunk_size(args, language, size, kept) for size in args.chunks]
    results: dict[str, Any] = {
        "setting": setting,
        "entropy_rate": language.entropy_rate_bounds(5),
        "worlds": worlds,
        "correlations": correlations(worlds),
    }
    show(results)
    print_results(results, CPU, args.json)
    if args.plot is not None:
        draw_plot(worlds, args.plot)


if __name__ == "__main__":
    main()
