"""Held-out texts of a synthetic language, the truth about them, and models measured against it."""

import argparse
from collections.abc import Iterator
from typing import cast

import torch
from law_distances import brier_lm_of, collisions, count, distances, divergence
from synthetic_language import SyntheticLanguage, chunk_numbers, entropy, optimal_brier
from torch import Generator, Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate, evaluate_softmax
from calmkit.evaluation.scored_text import HIGHEST_ORDER, find_targets
from calmkit.metrics import BrierLMResult, combine_brier
from calmkit.models import CALM, LanguageModel, TokenLM
from calmkit.training import step_generator

__all__ = ["World", "continue_texts", "draw_batch"]

ORDERS = range(1, HIGHEST_ORDER + 1)
_HELD_OUT = -1  # a step that no training has
_DRAWN_AT_ONCE = 256


def draw_batch(
    args: argparse.Namespace, language: SyntheticLanguage, size: int, step: int, *, texts: int
) -> ChunkBatch:
    """Fresh texts in chunks, for a step of a training or `_HELD_OUT`."""
    # Not the seed of the training: a step would draw its text and its noise from equal numbers.
    tokens = language.sample(texts, args.length, step_generator(args.seed + 1, step))
    tokens = tokens.view(texts, -1, size)
    positions = tokens.shape[1]
    return ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((positions,),) * texts)


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
        batch = draw_batch(args, language, size, _HELD_OUT, texts=args.rows)
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
        found["brier_lm_standard_error"] = brier.estimate.standard_error or 0.0
        for order, score in zip(ORDERS, brier.brier, strict=True):
            found[f"brier_{order}"] = score.value
            found[f"brier_{order}_standard_error"] = score.standard_error or 0.0
        return found


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
