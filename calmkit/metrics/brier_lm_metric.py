"""BrierLM as a torchmetrics `Metric`: updated batch by batch, summed over processes.

Its states are sums for each document (`NgramSums`), which processes add up. Errors and intervals
therefore cover all documents, whichever process scored them. `calmkit.evaluation.evaluate` draws
from a model and computes the same sums.

    metric = BrierLM(documents=62, chunk_size=4, protocol="8 draws after 64 chunks of true text")
    for ...:
        metric.update(draws, target, document=document, valid=is_text)
    print(metric.compute())

It needs torchmetrics, which `pip install 'calmkit[train]'` installs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.extras import with_remedy
from calmkit.typing import typed

from .brier_lm import BrierLMResult, summarize_brier
from .ngram_sums import NgramSums, counted_ngrams

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ImportError(with_remedy(f"BrierLM: {error}")) from error

__all__ = ["BrierLM"]


class BrierLM(Metric):
    """BrierLM over batches and processes; higher is better.

    The sums stay in float64 even if a model that contains the metric is cast. A `compute` or
    `forward` that raises leaves them unchanged.

    Attributes:
        hits: Sums of hit rates, (documents, orders, places).
        collisions: Sums of collision rates.
        counts: Number of n-grams in both sums.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    hits: Tensor
    collisions: Tensor
    counts: Tensor

    @typed
    def __init__(
        self,
        documents: int,
        chunk_size: int,
        *,
        highest_order: int = 4,
        resamples: int = 1000,
        seed: int = 0,
        level: float = 0.95,
        protocol: str = "",
    ) -> None:
        """Start with nothing counted.

        Args:
            documents: Number of documents over all processes.
            chunk_size: K, tokens in a chunk; n-grams that start in it count.
            highest_order: n of the longest n-grams; 4 for the published BrierLM.
            resamples: Number of bootstrap draws over documents.
            seed: Seed of the bootstrap.
            level: Nominal coverage of the confidence intervals.
            protocol: The evaluation in one sentence: draws, context, overlap, seed. It is
                printed with the numbers.

        Raises:
            ValueError: If a size is out of range.
        """
        check_at_least(2, documents=documents, resamples=resamples)
        check_at_least(1, chunk_size=chunk_size, highest_order=highest_order)
        super().__init__()
        self.documents, self.chunk_size, self.highest_order = documents, chunk_size, highest_order
        self.resamples, self.seed, self.level = resamples, seed, level
        self.protocol = protocol
        nothing = NgramSums.zeros(documents, highest_order, chunk_size)
        for name, empty in vars(nothing).items():
            self.add_state(name, default=empty, dist_reduce_fx="sum")

    @typed
    def update(
        self,
        draws: Int[Tensor, "samples points tokens"],
        target: Int[Tensor, "points tokens"],
        *,
        document: Int[Tensor, " points"],
        valid: Bool[Tensor, "points tokens"] | None = None,
    ) -> None:
        """Count draws of the tokens from the predicted chunk on.

        Args:
            draws: Independent draws of the chunk, at least two. If the chunk is shorter than the
                longest n-gram, they continue with the model's next chunks.
            target: The true tokens.
            document: Index of each point's document, from 0.
            valid: Which tokens are text; None means all.

        Raises:
            ValueError: If there are fewer than two draws, too few tokens, or a document is out
                of range.
        """
        enough = max(self.chunk_size, self.highest_order)
        if target.shape[1] < enough:
            raise ValueError(
                f"target must hold at least {enough} tokens, for chunks of {self.chunk_size} and "
                f"Brier-{self.highest_order}; got {target.shape[1]}. Draw on after the chunk."
            )
        if len(document) and not 0 <= int(document.min()) <= int(document.max()) < self.documents:
            raise ValueError(
                f"document must be in [0, {self.documents}); got {int(document.min())} to "
                f"{int(document.max())}."
            )
        is_text = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
        counted = counted_ngrams(is_text, self.highest_order, self.chunk_size)
        new = self._sums() + NgramSums.of_draws(draws, target, counted, document, self.documents)
        self.hits, self.collisions, self.counts = new.hits, new.collisions, new.counts

    def compute(self) -> BrierLMResult:
        """BrierLM with its components; documents without tokens are left out.

        Raises:
            ValueError: If fewer than two documents, or no n-gram of an order, have been counted.
        """
        return summarize_brier(
            self._sums().counted_groups(),
            resamples=self.resamples,
            seed=self.seed,
            level=self.level,
            protocol=self.protocol,
        )

    def _sums(self) -> NgramSums:
        return NgramSums(self.hits, self.collisions, self.counts)

    def forward(self, *args: Any, **keywords: Any) -> BrierLMResult:
        """Count a batch as `update` does, and compute BrierLM of this batch alone.

        Raises:
            ValueError: As `update` and `compute`; nothing is counted then.
        """
        with self._restored_on_error():
            return super().forward(*args, **keywords)

    def _apply(self, fn: Callable[[Tensor], Tensor], *others: Any, **keywords: Any) -> "BrierLM":
        # Casts and moves all end here. Follow moves only: fewer bits would lose counts.
        def moved(tensor: Tensor) -> Tensor:
            after = fn(tensor)
            return after if after.dtype == tensor.dtype else tensor.to(after.device)

        super()._apply(moved, *others, **keywords)
        return self

    @contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """Restore on an error what torchmetrics itself restores only after success."""
        before = dict(vars(self))  # sums are replaced, never changed in place
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics looks for tensors in a result and refuses frozen dataclasses on the way.
        wrapped = super()._wrap_compute(lambda: _Sealed(compute()))

        def computed() -> BrierLMResult:
            with self._restored_on_error():
                return wrapped().result

        return computed


class _Sealed:
    """Hides a result from torchmetrics."""

    def __init__(self, result: BrierLMResult) -> None:
        self.result = result
