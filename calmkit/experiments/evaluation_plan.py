"""What a model is measured on, and how.

The text and the protocol stand beside every number, which means nothing without them. For a model
of `calmkit train` both follow from its config (`of_training`). For any other one they are given;
see `evaluating`.
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
    """A text in a model's tokens, and how it is scored.

    Attributes:
        text: The documents to measure on.
        training_text: Those that the model was trained on; None where they are not known.
        training_seed: The seed of that training; None where it is not known.
        tokenizer: The model's.
        text_name: What the text is called in results.
        text_digest: SHA-256 of the documents.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        settings: Rows, draws, context and resamples.
        seed: Decides rows and draws.
        sampler: Chooses the chunks of the shown text; None: as of `Experiment`.
        sample_tokens: Tokens of the shown text.
        accelerator: Where to compute.
        config: All of this as YAML, as far as it was set.
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
        """How the model of an experiment is measured.

        Args:
            experiment: Evaluation settings, sampler, seeds.
            corpus: The prepared text.
            config: The effective config.
        """
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
        """The rows that are scored, the same for every seed of training."""
        return self.some_rows(self.settings.rows)

    @property
    def drawing_seed(self) -> int:
        """Decides what is drawn that no score depends on: the shown text and a diagnosis."""
        return self.seed if self.training_seed is None else self.training_seed

    def some_rows(self, count: int) -> EvaluationRows:
        """At most so many rows, spread over the documents."""
        return evaluation_rows(
            self.text,
            chunk_size=self.chunk_size,
            positions=self.positions,
            max_rows=count,
            seed=self.seed,
        )

    def check(self) -> None:
        """See that there is enough text to measure on.

        Raises:
            ValueError: If fewer than two rows have text after the context.
        """
        check_context(self.rows, self.settings.min_context)

    def rows_to_diagnose(self) -> EvaluationRows:
        """Rows for `diagnose`, as many as give enough points.

        Raises:
            ValueError: If fewer than two rows have a full chunk after the context.
        """
        rows = self.some_rows(enough_rows(self.positions, self.settings.rows))
        check_points(rows, self.settings.min_context)
        return rows
