"""A head under test."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head
from calmkit.testing.modules import gradients_of_training
from calmkit.testing.trial import Trial, seed_globally
from calmkit.typing import unchecked

__all__ = ["COND", "LATENT", "HeadTrial"]

COND = 5
LATENT = 3

# Of the work of a contract, the share of rows in one pass: a loss may draw for each several times.
_SHARE_OF_ROWS = 0.03
_FEWEST_ROWS = 100
_ROWS_OF_AN_EXAMPLE = 100
_FEWEST_EXAMPLES = 5


class HeadTrial(Trial):
    """Builds a head from `(cond_size, latent_size)` and calls it."""

    def build(self, latent: int = LATENT, cond: int = COND, *, number: int = 0) -> Head:
        """A new head; heads with the same number are equal."""
        return self.built(Head, cond, latent, number=number)

    def lively(
        self, latent: int = LATENT, *, steps: int = 10, lr: float = 0.03, **cast: Any
    ) -> Head:
        """A head after ten training steps, since layers initialised to zero would hide mistakes.

        Args:
            latent: Dimensions of a sample.
            steps: Number of steps.
            lr: Learning rate.
            cast: Arguments of `Head.to`, which is called after the training.
        """
        key = f"{latent=} {steps=} {lr=}"
        head = self._copy_of(key)
        if head is None:
            head = self.build(latent)
            self.train(head, steps=steps, latent=latent, lr=lr)
            self.kept[key] = head
            head = self._copy_of(key) or head
        return head.to(**cast) if cast else head

    def _copy_of(self, key: str) -> Head | None:
        """A copy of a head that was trained before; None where a head cannot be copied."""
        try:
            return copy.deepcopy(self.kept.get(key))
        except Exception:  # such as a tensor with a history among its attributes
            self.kept.pop(key)
            return None

    def rows(self, head: Head, *, samples: int = 0) -> int:
        """Rows of a statistical check: those of the profile, fewer for a large head.

        Args:
            head: Its parameters are counted.
            samples: How many are drawn for a row; none if its loss is computed.
        """
        affordable = _SHARE_OF_ROWS * self.profile.work / _work_of(head, samples or None)
        return int(min(self.profile.rows, max(_FEWEST_ROWS, affordable)))

    def search(
        self, examples: Callable[[Any], Any], check: Callable[[Any], None], *, most: int = 2_000
    ) -> None:
        """See `Trial.search`; with fewer examples for a head whose samples cost a second each."""
        affordable = self.profile.work / (_ROWS_OF_AN_EXAMPLE * _work_of(self.build(), 1))
        super().search(examples, check, most=int(max(_FEWEST_EXAMPLES, min(most, affordable))))

    def too_much(self, head: Head, *, rows: int, samples: int) -> str | None:
        """Why a contract is left to the profile `deep`; None if its work is affordable.

        Args:
            head: Its parameters are counted.
            rows: Rows of its loss or density.
            samples: How many samples it draws.
        """
        work = rows * _work_of(head, None) + samples * _work_of(head, 1)
        if work <= self.profile.work:
            return None
        return (
            f"a head of {_work_of(head, None):,} parameters would take minutes: give a factory "
            "with small widths, or the profile deep"
        )

    def train(
        self, head: Head, *, steps: int, latent: int = LATENT, lr: float = 0.03
    ) -> list[dict[str, Tensor]]:
        """Train on random targets and return the gradients of each step, by parameter."""

        def loss(step: int) -> Tensor:
            cond, target = self.problem((8,), latent, number=100 + step)
            with unchecked(step > 0):  # shapes are those of the first step
                return self.loss(head, cond, target, number=step)

        return gradients_of_training(head, loss, steps=steps, lr=lr)

    def problem(
        self,
        batch: Sequence[int],
        latent: int = LATENT,
        *,
        number: int = 1,
        std: float = 0.3,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Conditions and targets; the spread is not 1, where variance and deviation are equal."""
        generator = self.generator(number)
        cond = torch.randn(*batch, COND, generator=generator, dtype=dtype)
        mean = 0.5 * torch.randn(*batch, latent, generator=generator, dtype=dtype)
        return cond, DiagonalGaussian(mean, torch.full_like(mean, std))

    def loss(
        self, head: Head, cond: Tensor, target: DiagonalGaussian, *, number: int = 0
    ) -> Tensor:
        """The head's loss, from the generator with a number.

        The global generator is seeded too, so that its use does not affect unrelated contracts.
        """
        seed_globally(number)
        return self.call(head.loss, cond, target, self.generator(number))

    def sample(self, head: Head, cond: Tensor, num_samples: int, *, number: int = 0) -> Tensor:
        """The head's samples, from the generator with a number; see `loss`."""
        seed_globally(number)
        return self.call(head.sample, cond, num_samples, self.generator(number))


def _work_of(head: Head, samples: int | None) -> int:
    """Multiplications by a weight for one row: of a loss, or of some samples."""
    evaluations = 1 if samples is None else samples * (head.evaluations_per_sample or 1)
    return evaluations * max(1, sum(parameter.numel() for parameter in head.parameters()))
