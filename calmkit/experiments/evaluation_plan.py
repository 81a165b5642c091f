"""The text and the protocol of an evaluation, which are reported with every score.

For a model trained by `calmkit train`, both follow from its config (`of_training`). For other
models the caller gives them; see `evaluating`.
"""

import functools
from dataclasses import dataclass

from calmkit.config import TrainExperiment
from calmkit.data import (
    Corpus,
    EvaluationRows,
    TextMixture,
    TextTokenizer,
    TokenStore,
    evaluation_rows,
)
from calmkit.diagnostics import check_points, enough_rows
from calmkit.evaluation import EvaluationSettings, check_context
from calmkit.sampling import Sampler

__all__ = ["EvaluationPlan"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationPlan:
    """A tokenized text and the protocol by which it is scored.

    Attributes:
        text: The documents to evaluate on.
        training_text: The training documents; None if unknown.
        training_seed: The seed of the training; None if unknown.
        tokenizer: The model's tokenizer.
        text_name: Name of the text in results.
        text_digest: SHA-256 of the documents.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        settings: Rows, draws, context and resamples.
        seed: Seed of the rows and draws.
        sampler: Sampler of the speed and the accuracy, and of texts beside the temperatures; None:
            one draw.
        sample_tokens: Length of each sample text in tokens.
        accelerator: Device to compute on.
        config: The explicitly set values as YAML.
    """

    text: TokenStore | TextMixture
    training_text: TokenStore | TextMixture | None = None
    training_seed: int | None = None
    tokenizer: TextTokenizer
    text_name: str
    text_digest: str
    chunk_size: int
    positions: int
    settings: EvaluationSettings
    seed: int = 0
    sampler: Sampler | None = None
    sample_tokens: int = 120
    accelerator: str = "auto"
    config: str = ""

    @staticmethod
    def of_training(
        experiment: TrainExperiment, corpus: Corpus, config: str = ""
    ) -> "EvaluationPlan":
        """The plan for the model of an experiment."""
        return EvaluationPlan(
            text=corpus.validation,
            training_text=corpus.train,
            training_seed=experiment.seed,
            tokenizer=corpus.tokenizer,
            text_name=corpus.name,
            text_digest=corpus.digest,
            chunk_size=experiment.chunk_size,
            positions=experiment.positions,
            settings=experiment.evaluation,
            seed=experiment.evaluation_seed,
            sampler=experiment.sampler,
            sample_tokens=experiment.sample_tokens,
            accelerator=experiment.accelerator,
            config=config,
        )

    @functools.cached_property
    def rows(self) -> EvaluationRows:
        """The scored rows, the same for every training seed."""
        return self.some_rows(self.settings.rows)

    @property
    def drawing_seed(self) -> int:
        """Seed of the draws that no score depends on: the sample text and the diagnosis."""
        return self.seed if self.training_seed is None else self.training_seed

    def some_rows(self, count: int, *, after: int = 0) -> EvaluationRows:
        """At most `count` rows, spread over the documents; others than the first `after`."""
        return evaluation_rows(
            self.text,
            chunk_size=self.chunk_size,
            positions=self.positions,
            max_rows=count,
            seed=self.seed,
            after=after,
        )

    def rows_to_learn(self, count: int) -> EvaluationRows:
        """At most `count` rows of the training text; if it is unknown, rows that are not scored.

        Raises:
            ValueError: If there is no such row.
        """
        if self.training_text is None:
            return self.some_rows(count, after=self.settings.rows)
        return evaluation_rows(
            self.training_text,
            chunk_size=self.chunk_size,
            positions=self.positions,
            max_rows=count,
            seed=self.seed,
        )

    def rows_to_tune(self) -> EvaluationRows:
        """As many rows again as are scored, none of which is scored: for choices before that.

        Raises:
            ValueError: If fewer than two such rows have text after the context.
        """
        rows = self.some_rows(self.settings.rows, after=self.settings.rows)
        check_context(rows, self.settings.min_context)
        return rows

    def check(self) -> None:
        """Check that there is enough text to evaluate on.

        Raises:
            ValueError: If fewer than two rows have text after the context.
        """
        check_context(self.rows, self.settings.min_context)

    def rows_to_diagnose(self) -> EvaluationRows:
        """Rows for `diagnose`, enough for a stable diagnosis.

        Raises:
            ValueError: If fewer than two rows have a full chunk after the context.
        """
        rows = self.some_rows(enough_rows(self.positions, self.settings.rows))
        check_points(rows, self.settings.min_context)
        return rows
