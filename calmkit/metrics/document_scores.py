r"""Sums of scores over documents, from which two evaluations can be compared.

A mean over tokens is `sum over documents / count over documents`. Two models that are scored on
the same documents share the difficulty of each document. Their difference is therefore much more
precise than the two errors suggest, if each resample draws the same documents for both (the paired
bootstrap):

    d = S_1 / C_1 - S_2 / C_2,    d* = (sum_g w_g S_1g) / (sum_g w_g C_1g) - (the same of 2),

where w_g, the number of times document g was drawn, is the same in both. Intervals leave out the
same document in both; see `intervals`. Orientation: that of the scores; `first` minus `second`.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; for the pairing, Koehn,
"Statistical Significance Tests for Machine Translation Evaluation", 2004.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

from .bootstrap import Estimate, bootstrap_ratio, errors_of, estimates_from, resampled_ratios
from .intervals import jackknife, ratios_without_each

__all__ = ["DocumentScores", "paired_difference"]


@typed
@dataclass(frozen=True, eq=False)
class DocumentScores:
    """Sums of each metric over the tokens of each group.

    Attributes:
        names: Names of the metrics, such as `brier_1`.
        sums: Sum of each metric in each group.
        counts: Number of tokens (or n-grams, or chunks) in each sum.
        groups: The number of each group's document or row.
        unit: Which of the two. Rows replace documents where these are too few for a bootstrap.
            Rows of one document are alike, and a result on them may not hold for other documents:
            there are standard errors, but no confidence intervals.
    """

    names: tuple[str, ...]
    sums: Float[Tensor, "groups metrics"]
    counts: Float[Tensor, "groups metrics"]
    groups: tuple[int, ...]
    unit: Literal["documents", "rows"]

    def __post_init__(self) -> None:
        """Refuse tables that do not match their names, names that repeat, and negative counts."""
        for field, values in (("names", self.names), ("groups", self.groups)):
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ValueError(f"{field} must not repeat; got {twice!r} twice.")
        if not bool((self.counts >= 0).all() and self.counts.isfinite().all()):
            raise ValueError("counts must be finite and not negative; some are not.")
        wanted = (len(self.groups), len(self.names))
        if tuple(self.sums.shape) != wanted:
            raise ValueError(
                f"sums must have {wanted[0]} groups and {wanted[1]} metrics, as groups and names "
                f"have; got {tuple(self.sums.shape)}."
            )

    def estimate(
        self, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> list[Estimate]:
        """Mean of each metric, in the order of the names; see `bootstrap_ratio`.

        Raises:
            ValueError: If there are fewer than two groups, a metric has no tokens, or an argument
                is out of range.
        """
        self._check_counted()
        return bootstrap_ratio(
            self.sums,
            self.counts,
            resamples=resamples,
            seed=seed,
            level=level if self.unit == "documents" else None,
        )

    def select(self, *names: str) -> "DocumentScores":
        """Some of the metrics, for instance those that two kinds of model have in common.

        Raises:
            ValueError: If a name is unknown.
        """
        for name in names:
            if name not in self.names:
                raise ValueError(f"names must be among {', '.join(self.names)}; got {name!r}.")
        columns = [self.names.index(name) for name in names]
        sums, counts = self.sums[:, columns], self.counts[:, columns]
        return DocumentScores(names, sums, counts, self.groups, self.unit)

    def with_metric(
        self,
        name: str,
        values: Float[Tensor, " points"],
        counts: Float[Tensor, " points"],
        group: Int[Tensor, " points"],
    ) -> "DocumentScores":
        """The scores with one more metric on the same groups.

        Args:
            name: Name of the metric.
            values: Its sum at each point of the text.
            counts: Number of tokens in each of these sums.
            group: The group of each point, as named in `groups`.

        Raises:
            ValueError: If the name is taken, or the group of a point is not in `groups`.
        """
        if name in self.names:
            raise ValueError(f"name must be new; got {name!r}, which exists already.")
        place = {known: n for n, known in enumerate(self.groups)}
        unknown = sorted(set(group.tolist()) - place.keys())
        if unknown:
            raise ValueError(f"group must hold {self.unit} that are in groups; got {unknown[0]}.")
        index = torch.tensor([place[one] for one in group.tolist()], dtype=torch.long)
        sums, counts = (
            torch.zeros(len(place), 1, dtype=self.sums.dtype).index_add_(
                0, index, x.cpu().to(self.sums.dtype)[:, None]
            )
            for x in (values, counts)
        )
        return DocumentScores(
            names=(*self.names, name),
            sums=torch.cat([self.sums, sums], dim=1),
            counts=torch.cat([self.counts, counts], dim=1),
            groups=self.groups,
            unit=self.unit,
        )

    def _check_counted(self) -> None:
        """Refuse scores that have no standard error; names the metric."""
        if len(self.groups) < 2:
            raise ValueError(
                f"{self.unit} must be at least 2 for a standard error; got {len(self.groups)}. "
                "Score more text."
            )
        for name, count in zip(self.names, self.counts.sum(dim=0).tolist(), strict=True):
            if not count > 0:
                raise ValueError(
                    f"counts must be positive; {name} has no token in any of the "
                    f"{len(self.groups)} {self.unit}. Leave it out with `select`."
                )

    def to_dict(self) -> dict[str, Any]:
        """The scores as lists, for JSON; a number that is not finite becomes None."""
        return {
            "names": list(self.names),
            "unit": self.unit,
            "groups": list(self.groups),
            "sums": _as_lists(self.sums),
            "counts": _as_lists(self.counts),
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "DocumentScores":
        """Read the result of `to_dict`; None becomes NaN.

        Raises:
            ValueError: If the content has another form.
        """
        try:
            names, groups = tuple(content["names"]), tuple(content["groups"])
            shape = len(groups), len(names)
            sums, counts = (_as_tensor(content[name], shape) for name in ("sums", "counts"))
            return DocumentScores(names, sums, counts, groups, content["unit"])
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0].removesuffix(".")
            raise ValueError(
                "content must be a mapping as given by `DocumentScores.to_dict`; "
                f"got {type(error).__name__}: {reason}."
            ) from error

    def __eq__(self, other: object) -> bool:
        """Whether all numbers and names are equal."""
        return isinstance(other, DocumentScores) and self.to_dict() == other.to_dict()


@typed
def paired_difference(
    first: DocumentScores,
    second: DocumentScores,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """Each metric of the first evaluation minus that of the second (module docstring).

    Args:
        first: Scores of one model.
        second: Scores of another model on the same documents.
        resamples: Number of bootstrap draws.
        seed: Seed of the resampling.
        level: Nominal coverage of the confidence intervals. An interval that excludes zero is
            evidence that the models differ. There are no intervals over rows.

    Returns:
        The differences, in the order of the names.

    Raises:
        ValueError: If the two have different metrics or groups, fewer than two groups, or a metric
            without tokens.
    """
    for name, one, other in (
        ("names", first.names, second.names),
        ("unit", first.unit, second.unit),
        ("groups", first.groups, second.groups),
    ):
        if one != other:
            raise ValueError(
                f"{name} must be the same in both evaluations, for a paired comparison; "
                f"got {_shortened(one)} and {_shortened(other)}. Evaluate both on the same rows."
            )
    values, drawn, without_each, shares = [], [], [], []
    for scores in (first, second):
        scores._check_counted()
        sums, counts = scores.sums, scores.counts
        drawn.append(resampled_ratios(sums, counts, resamples=resamples, seed=seed))
        values.append(sums.sum(dim=0) / counts.sum(dim=0))
        without_each.append(ratios_without_each(sums, counts))
        shares.append(counts / counts.sum(dim=0))
    change = values[0] - values[1]
    variance = jackknife(change, without_each[0] - without_each[1], (shares[0] + shares[1]) / 2)
    errors = errors_of(drawn[0] - drawn[1])
    return estimates_from(change, errors, variance, level if first.unit == "documents" else None)


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _as_lists(table: Tensor) -> list[list[float | None]]:
    return [[x if math.isfinite(x) else None for x in row] for row in table.tolist()]


def _as_tensor(table: list[list[float | None]], shape: tuple[int, int]) -> Tensor:
    numbers = [[math.nan if x is None else x for x in row] for row in table]
    return torch.tensor(numbers, dtype=torch.float64).view(shape)
