r"""A language whose law is known exactly: a hidden Markov model with a small vocabulary.

A hidden state s moves by the transition T and emits a token by the emission E; it starts in the
stationary law pi = pi T, so that every piece of a text has the same law. What a past x_1 ... x_t
tells of the future is the *belief* b, the law of the state that emits the next token:

    b_1 = pi,    b_(t+1) = (b_t * E[:, x_t]) T / sum(b_t * E[:, x_t])          (filtering)
    P(y_1 ... y_n | b) = b diag(E[:, y_1]) T diag(E[:, y_2]) ... T E[:, y_n]   (forward algorithm)

The best Brier-n that any model can have after b is the collision probability of that law. The sum
over all n-grams runs through pairs of hidden states, and needs no enumeration:

    sum_y P(y | b)^2 = b W_n b',    W_1 = E E',    W_n = (E E') * (T W_(n-1) T')

with * for products entry by entry and ' for transposes. The entropy rate has no closed form, but
bounds that any number of tokens n makes tighter (Cover and Thomas, Theorem 4.5.1):

    H(x_n | x_1 ... x_(n-1), s_1) <= H <= H(x_n | x_1 ... x_(n-1)).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from calmkit.evaluation.scored_text import Targets
from calmkit.typing import typed

__all__ = ["SyntheticLanguage", "chunk_numbers", "entropy", "optimal_brier"]


@typed
@dataclass(frozen=True, eq=False)
class SyntheticLanguage:
    """A hidden Markov model, of float64.

    Attributes:
        transition: T, the law of the state after each state.
        emission: E, the law of the token in each state.
        start: pi, the stationary law of the state.
    """

    transition: Float[Tensor, "states states"]
    emission: Float[Tensor, "states vocab"]
    start: Float[Tensor, " states"]

    @staticmethod
    def seeded(
        seed: int, *, states: int = 6, vocab: int = 8, stay: float = 0.8, sharpness: float = 3.0
    ) -> "SyntheticLanguage":
        """A language of random numbers.

        Args:
            seed: Decides them.
            states: Hidden states.
            vocab: Tokens.
            stay: The probability of staying in a state, before it is chosen anew.
            sharpness: How unequal the tokens of a state are; 0 makes them equal.

        Raises:
            ValueError: If there are too few states or tokens, or a number is out of range.
        """
        if min(states, vocab) < 2:
            raise ValueError(f"states and vocab must be at least 2; got {states} and {vocab}.")
        if not 0 <= stay < 1 or sharpness < 0:
            raise ValueError(
                "stay must be in [0, 1) and sharpness must not be negative; "
                f"got {stay} and {sharpness}."
            )
        generator = Generator().manual_seed(seed)
        logits = [
            torch.randn(states, size, generator=generator, dtype=torch.float64)
            for size in (states, vocab)
        ]
        moved, emission = logits[0].softmax(dim=-1), (sharpness * logits[1]).softmax(dim=-1)
        same = torch.eye(states, dtype=torch.float64)
        transition = stay * same + (1 - stay) * moved
        # pi (T - 1) = 0 and sum(pi) = 1 together: a matrix of ones adds the second to the first.
        start = torch.linalg.solve((same - transition + 1).T, torch.ones_like(same[0]))
        return SyntheticLanguage(transition, emission, start)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.emission.shape[1]

    @typed
    def sample(self, rows: int, length: int, generator: Generator) -> Int[Tensor, "rows length"]:
        """Independent texts."""
        state = torch.multinomial(self.start, rows, replacement=True, generator=generator)
        states = [state]
        for _ in range(length - 1):
            state = torch.multinomial(self.transition[state], 1, generator=generator)[:, 0]
            states.append(state)
        laws = self.emission[torch.stack(states, dim=1).flatten()]
        return torch.multinomial(laws, 1, generator=generator).view(rows, length)

    @typed
    def beliefs(self, tokens: Int[Tensor, "rows length"]) -> Float[Tensor, "rows places states"]:
        """The belief after the first 0, 1, ..., length tokens of each text."""
        belief = self.start.expand(len(tokens), -1)
        beliefs = [belief]
        for token in tokens.unbind(dim=1):
            weighted = belief * self.emission.T[token]
            belief = weighted / weighted.sum(dim=-1, keepdim=True) @ self.transition
            beliefs.append(belief)
        return torch.stack(beliefs, dim=1)

    @typed
    def chunk_law(
        self, belief: Float[Tensor, "*batch states"], size: int
    ) -> Float[Tensor, "*batch chunks"]:
        """The probability of each of the vocab^size next chunks, in order of `chunk_numbers`."""
        # Of each beginning of a chunk: its probability together with the state that comes next.
        joint = belief[..., None, :] * self.emission.T
        for _ in range(size - 1):
            joint = ((joint @ self.transition)[..., None, :] * self.emission.T).flatten(-3, -2)
        return joint.sum(dim=-1)

    @typed
    def collision(
        self, belief: Float[Tensor, "*batch states"], order: int
    ) -> Float[Tensor, "*batch"]:
        """The probability that two draws of the next `order` tokens are equal: b W_n b'."""
        equal = self.emission @ self.emission.T
        weights = equal
        for _ in range(order - 1):
            weights = equal * (self.transition @ weights @ self.transition.T)
        return (belief @ weights * belief).sum(dim=-1)

    def entropy_rate_bounds(self, length: int) -> tuple[float, float]:
        """Bounds in nats per token, from all texts of `length` >= 2 tokens."""
        known = torch.eye(len(self.start), dtype=torch.float64)
        grown = [
            entropy(self.chunk_law(belief, length)) - entropy(self.chunk_law(belief, length - 1))
            for belief in (known, self.start)
        ]
        return float(self.start @ grown[0]), float(grown[1])


@typed
def chunk_numbers(tokens: Int[Tensor, "*batch chunk"], vocab: int) -> Int[Tensor, "*batch"]:
    """The number of each chunk: its tokens as digits, the first one the highest."""
    places = vocab ** torch.arange(tokens.shape[-1]).flip(0)
    return (tokens * places.to(tokens.device)).sum(dim=-1)


@typed
def entropy(law: Float[Tensor, "*batch outcomes"]) -> Float[Tensor, "*batch"]:
    """- sum_x p(x) log p(x), in nats."""
    return torch.special.entr(law).sum(dim=-1)


def optimal_brier(language: SyntheticLanguage, tokens: Tensor, targets: Targets) -> list[float]:
    """The best expected Brier-n at the n-grams of targets, given the texts before them.

    A model sees the text up to the predicted chunk, also where an n-gram starts within it.

    Args:
        language: The source.
        tokens: The texts (rows, positions, chunk) in which the targets are.
        targets: What is scored, as from `find_targets`.
    """
    _, highest_order, chunk_size = targets.counted.shape
    beliefs = language.beliefs(tokens.flatten(1))
    belief = beliefs[targets.row, targets.place * chunk_size]
    later = torch.stack(
        [belief @ torch.linalg.matrix_power(language.transition, k) for k in range(chunk_size)],
        dim=1,
    )
    best = []
    for order in range(1, highest_order + 1):
        starts = later[targets.counted[:, order - 1]]
        best.append(float(language.collision(starts, order).mean()))
    return best
