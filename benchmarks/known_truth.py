r"""Does BrierLM rank models as their distance to the truth does, and as cross entropy does?

The language is synthetic, and the law Q of the next chunk after any text is known
(`synthetic_language.py`). Models with each head are trained on it at K = 1, 2, 4; at checkpoints
along each training, m chunks are drawn after each of some held-out texts. From how often a chunk
x was drawn, n_x, and the V^K chunks that there are:

    total variation    1/2 sum_x |n_x / m - Q(x)|
    KL                 sum_x Q(x) log(Q(x) / q(x)),    q(x) = (n_x + 1/2) / (m + V^K / 2)
    Brier regret       sum_x (n_x / m - Q(x))^2, without bias: collisions among the draws instead
                       of (n_x / m)^2
    excess             KL / K: what the cross entropy per token has above the truth's

as means over the texts, in nats. The draws are finite, so total variation is too high. KL is too
high as a rule, since chunks that were never drawn get a share all the same; a model that leaves
out what is likely can come out too low. Both errors are small at K = 1, not at K = 4. Two rows
show them: *truth*, as many draws of Q itself, is the least that can be found; *perfect head* takes
those chunks through the autoencoder (posterior, a draw of it, decoder), the least for its heads.

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
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from head_rates import every_head
from kept_rows import KeptRows
from known_truth_report import correlations, draw_plot, show
from measuring import environment
from synthetic_language import SyntheticLanguage, chunk_numbers, entropy, optimal_brier
from torch import Generator, Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.heads import EnergyHead, Head
from calmkit.metrics import BrierLMResult, combine_brier, reconstructed_tokens
from calmkit.models import CALM, ChunkEmbedding, LanguageModel, TokenLM
from calmkit.scoring import EnergyScore
from calmkit.training import (
    EvaluationSettings,
    MatrixDecayAdamW,
    TrainingSettings,
    evaluate,
    evaluate_softmax,
    fit,
    step_generator,
)
from calmkit.training.scored_text import HIGHEST_ORDER, find_targets

CPU = torch.device("cpu")
ORDERS = range(1, HIGHEST_ORDER + 1)
# Further settings of the energy head, so that it is seen at its best and at less.
ENERGY: dict[str, Callable[..., Head]] = {
    "EnergyHead": EnergyHead,
    "EnergyHead, N = 2": partial(EnergyHead, num_samples=2),
    "EnergyHead, alpha = 0.5": partial(EnergyHead, rule=EnergyScore(0.5)),
}
_HELD_OUT = -1  # a step that no training has
_DRAWN_AT_ONCE = 256
_STANDARDIZE_ON_BATCHES = 8


def draw_batch(
    args: argparse.Namespace, language: SyntheticLanguage, size: int, step: int, rows: int
) -> ChunkBatch:
    """Fresh texts in chunks, for a step of a training or `_HELD_OUT`."""
    # Not the seed of the training: a step would draw its text and its noise from equal numbers.
    tokens = language.sample(rows, args.length, step_generator(args.seed + 1, step))
    tokens = tokens.view(rows, -1, size)
    positions = tokens.shape[1]
    return ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((positions,),) * rows)


class World:
    """One chunk size: held-out texts, and the truth about them.

    Attributes:
        rows: The texts.
        law: Q after each text without its last chunk, (texts, chunks).
        optimum: The best expected BrierLM on the texts.
        optimal_brier: Of Brier-1 to 4, times 100.
        expected_optimum: The best expected BrierLM of the four tokens after `law`'s texts.
    """

    def __init__(self, args: argparse.Namespace, language: SyntheticLanguage, size: int) -> None:
        batch = draw_batch(args, language, size, _HELD_OUT, args.rows)
        self.language, self.size, self.seed = language, size, args.seed
        self.draws = args.draws
        self.rows = EvaluationRows(batch, torch.arange(args.rows))
        self.settings = EvaluationSettings(
            rows=args.rows, draws=args.brier_draws, min_context=args.context // size, bootstrap=200
        )
        self.branches = args.branches
        self.past = batch.tokens[:, :-1]
        belief = language.beliefs(self.past.flatten(1))[:, -1]
        self.law = language.chunk_law(belief, size)
        four = language.chunk_law(belief, ORDERS[-1])
        self.law_of_four = four.view(-1, *[language.vocab_size] * ORDERS[-1])
        squares = [[law.square().sum(dim=-1).mean() for law in laws] for laws in self._laws()]
        self.expected_optimum = brier_lm_of(squares)
        targets = find_targets(batch.tokens, batch.real, self.settings.min_context)
        best = optimal_brier(language, batch.tokens, targets)
        self.optimal_brier = [100 * value for value in best]
        self.optimum = float(combine_brier(torch.tensor(best, dtype=torch.float64)))

    def true_chunks(self) -> Tensor:
        """Draws of the truth itself, (draws, texts, chunk)."""
        generator = step_generator(self.seed, _HELD_OUT - 1)
        number = torch.multinomial(self.law, self.draws, replacement=True, generator=generator).T
        places = self.language.vocab_size ** torch.arange(self.size).flip(0)
        return number[..., None] // places % self.language.vocab_size

    @torch.no_grad()
    def perfect_chunks(self, autoencoder: ChunkAutoencoder) -> Tensor:
        """The same, through the autoencoder as a perfect head would do it."""
        generator = step_generator(self.seed, _HELD_OUT - 2)
        posterior = autoencoder.encode(self.true_chunks())
        return autoencoder.decode_tokens(posterior.sample(1, generator)[0])

    def measure_draws(self, chunks: Tensor) -> dict[str, float]:
        """Distances to the truth of some draws."""
        numbers = chunk_numbers(chunks, self.language.vocab_size)
        return self._with_cross_entropy(distances(numbers, self.law))

    @torch.no_grad()
    def measure_calm(self, module: nn.Module) -> dict[str, float]:
        """Distances to the truth and Brier scores of a model with a head."""
        model = cast(CALM, module)
        generator = step_generator(self.seed, _HELD_OUT - 3)
        draw = model.draws(self._states(model), generator)
        counts = [_DRAWN_AT_ONCE] * (self.draws // _DRAWN_AT_ONCE)
        counts += [self.draws % _DRAWN_AT_ONCE] if self.draws % _DRAWN_AT_ONCE else []
        found = self.measure_draws(torch.cat([draw(count) for count in counts]))
        scores = evaluate(model, self.rows, self.settings, seed=self.seed)
        return found | self._brier(scores.brier) | self.measure_expected(model)

    @torch.no_grad()
    def measure_softmax(self, module: nn.Module) -> dict[str, float]:
        """The same of a softmax, by its probabilities; exact but for BrierLM."""
        model = cast(TokenLM, module)
        logs = model.logits(self._states(model)).double().log_softmax(dim=-1)
        p = logs.exp()
        found = self._with_cross_entropy(
            {
                "total_variation": float((p - self.law).abs().sum(dim=-1).mean() / 2),
                "kl": divergence(self.law, logs),
                "brier_regret": 100 * float((p - self.law).square().sum(dim=-1).mean()),
            }
        )
        scores = evaluate_softmax(model, self.rows, self.settings, seed=self.seed)
        return found | self._brier(scores.brier) | self.measure_expected(model)

    @torch.no_grad()
    def measure_expected(self, model: LanguageModel) -> dict[str, float]:
        """BrierLM in expectation over all that may come."""
        generator = step_generator(self.seed, _HELD_OUT - 4)
        tokens = continue_texts(model, self.past, self.branches, generator)
        scores: list[list[Tensor]] = []
        for order, laws in zip(ORDERS, self._laws(), strict=True):
            scores.append([])
            for start, law in enumerate(laws):
                window = tokens[..., start : start + order]
                counts = count(chunk_numbers(window, self.language.vocab_size), law)
                value = 2 * counts / len(tokens) * law - collisions(counts)
                scores[-1].append(value.sum(dim=-1).mean())
        found = brier_lm_of(scores)
        return {"expected_brier_lm": found, "expected_share": found / self.expected_optimum}

    def _laws(self) -> Iterator[list[Tensor]]:
        """For n = 1 to 4, the true laws of the n-grams that start at each place of the chunk."""
        for order in ORDERS:
            laws = []
            for start in range(min(self.size, ORDERS[-1] - order + 1)):
                kept = {0, *range(1 + start, 1 + start + order)}
                others = [axis for axis in range(1 + ORDERS[-1]) if axis not in kept]
                law = self.law_of_four.sum(dim=others) if others else self.law_of_four
                laws.append(law.flatten(1))
            yield laws

    def _states(self, model: LanguageModel) -> Tensor:
        return model.hidden_states(self.rows.batch)[:, -2]

    def _with_cross_entropy(self, found: dict[str, float]) -> dict[str, float]:
        nats = found["kl"] + float(entropy(self.law).mean())
        excess = found["kl"] / self.size
        return found | {"excess_cross_entropy": excess, "cross_entropy": nats / self.size}

    def _brier(self, brier: BrierLMResult) -> dict[str, float]:
        found = {"brier_lm": brier.brier_lm, "share_of_optimum": brier.brier_lm / self.optimum}
        found["brier_lm_standard_error"] = brier.estimate.standard_error
        for order, score in zip(ORDERS, brier.brier, strict=True):
            found[f"brier_{order}"] = score.value
            found[f"brier_{order}_standard_error"] = score.standard_error
        return found


def count(numbers: Tensor, law: Tensor) -> Tensor:
    """How often each outcome of a law was drawn, from the numbers of the draws."""
    ones = torch.ones_like(numbers.T, dtype=law.dtype)
    return torch.zeros_like(law).scatter_add_(1, numbers.T, ones)


def collisions(counts: Tensor) -> Tensor:
    """Each outcome's share of equal pairs of draws; its mean is the squared probability."""
    m = counts.sum(dim=-1, keepdim=True)
    return counts * (counts - 1) / (m * (m - 1))


def brier_lm_of(scores: Sequence[Sequence[Tensor]]) -> float:
    """BrierLM of Brier-1 to 4, each a mean over places."""
    return float(combine_brier(torch.stack([torch.stack(list(v)).mean() for v in scores])))


def continue_texts(
    model: LanguageModel, past: Tensor, branches: int, generator: Generator
) -> Tensor:
    """At least four tokens after each text, drawn in branches: (branches, texts, tokens)."""
    texts, positions, size = past.shape
    chunks = -(-ORDERS[-1] // size)
    cache = model.backbone.new_cache(texts, positions + chunks)
    vectors = model.input_encoder(past, torch.ones_like(past).bool())
    state = model.backbone(vectors, cache=cache)[:, -1].repeat(branches, 1)
    row = torch.arange(texts).repeat(branches)
    own = cache.select(row, torch.full_like(row, positions))
    drawn = [model.draws(state, generator)(1)[0]]
    while len(drawn) < chunks:
        vectors = model.input_encoder(drawn[-1], torch.ones_like(drawn[-1]).bool())
        state = model.backbone(vectors[:, None], cache=own)[:, 0]
        drawn.append(model.draws(state, generator)(1)[0])
    return torch.cat(drawn, dim=-1).view(branches, texts, -1)


def distances(numbers: Tensor, law: Tensor) -> dict[str, float]:
    """Total variation, KL and Brier regret (times 100) of draws to laws, means over texts.

    Args:
        numbers: The numbers of the drawn chunks, (draws, texts).
        law: Q, (texts, chunks).
    """
    m, chunks = len(numbers), law.shape[1]
    counts = count(numbers, law)
    smooth = (counts + 0.5) / (m + chunks / 2)
    regret = (collisions(counts) - 2 * counts / m * law + law.square()).sum(dim=-1)
    return {
        "total_variation": float((counts / m - law).abs().sum(dim=-1).mean() / 2),
        "kl": divergence(law, smooth.log()),
        "brier_regret": 100 * float(regret.mean()),
    }


def divergence(law: Tensor, logs: Tensor) -> float:
    """KL of laws from log-probabilities, mean over texts."""
    return -float((entropy(law) + (law * logs).sum(dim=-1)).mean())


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
    batch_at = partial(draw_batch, args, language, size, rows=args.batch)
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
    batch_at = partial(draw_batch, args, language, world.size, rows=args.batch)
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
    text = json.dumps({**environment(CPU), "results": results}, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")
    if args.plot is not None:
        draw_plot(worlds, args.plot)


if __name__ == "__main__":
    main()
