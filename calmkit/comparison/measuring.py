"""Scores of a saved model that comes without the config of a run.

A folder of `calmkit train` says which text was held out and how it is scored. A published model, or
one that `calmkit.save` wrote, does not: the text is given, or is the embedded English prose, and so
is the protocol. Both stand beside the numbers, which mean nothing without them. The model's own
tokenizer turns the text into tokens. What the model was trained on is not known here: on text that
it has seen, it scores too well.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from calmkit.comparison.checkpoint import Checkpoint
from calmkit.data import EvaluationRows, TokenStore, digest_of, evaluation_rows, read_documents
from calmkit.data.sources import EMBEDDED_NAME
from calmkit.metrics import Estimate, reconstructed_tokens
from calmkit.models import CALM
from calmkit.nn import evaluation_mode
from calmkit.training import EvaluationSettings, evaluate
from calmkit.training.scored_text import check_context

__all__ = ["Measurement", "Protocol", "ScoredText", "measure", "text_to_score"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a text is scored.

    Attributes:
        positions: Chunks in a row.
        settings: Rows, draws, context and resamples.
        seed: Decides rows and draws.
    """

    positions: int = 64
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text in a model's tokens.

    Attributes:
        name: Of the file or folder.
        digest: SHA-256 of the text.
        store: The tokens.
        chunk_size: K, tokens in a chunk.
        protocol: How it is scored.
    """

    name: str
    digest: str
    store: TokenStore
    chunk_size: int
    protocol: Protocol

    def rows(self, count: int) -> EvaluationRows:
        """At most so many rows, spread over the documents."""
        return evaluation_rows(
            self.store,
            chunk_size=self.chunk_size,
            positions=self.protocol.positions,
            max_rows=count,
            seed=self.protocol.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was found; higher Brier scores and a lower energy score are better.

    Attributes:
        head: Class of the head.
        parameters: Of the whole model.
        brier_lm: In per cent; 0 where it is undefined.
        brier: Brier-1 to 4, in per cent.
        not_positive: The n whose Brier-n is not positive, which leaves BrierLM undefined.
        energy_score: Of drawn latents against the posteriors.
        restored: Share of the tokens that the autoencoder gives back.
        protocol: How it was measured, in a sentence.
        text: Name of the text.
        digest: SHA-256 of the text.
        seed: Decides rows and draws.
    """

    head: str
    parameters: int
    brier_lm: float
    brier: tuple[Estimate, ...]
    not_positive: tuple[int, ...]
    energy_score: Estimate
    restored: float
    protocol: str
    text: str
    digest: str
    seed: int

    def to_text(self) -> str:
        """A few lines to print."""
        lines = [
            f"{self.head}, a model of {self.parameters / 1e6:.4g} million parameters",
            f"BrierLM       {self.brier_lm:.2f} %  (higher is better)",
            *(f"Brier-{n}       {_plus_minus(one)} %" for n, one in enumerate(self.brier, 1)),
            f"energy score  {_plus_minus(self.energy_score)}  (lower is better)",
        ]
        if self.not_positive:
            which = " and ".join(f"Brier-{n}" for n in self.not_positive)
            lines.append(f"BrierLM is 0 because {which} must be positive, and is not.")
        return "\n".join([
            *lines,
            f"Autoencoder: {100 * self.restored:.2f} % of the tokens restored.",
            f"Protocol: {self.protocol}.",
            f"Text: {self.text}, SHA-256 {self.digest[:12]}. Nothing is known here of the text "
            "that the model was trained on.",
            "",
        ])  # fmt: skip

    def write(self, path: Path) -> None:
        """Write every number as JSON.

        Args:
            path: The file.
        """
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def text_to_score(checkpoint: Checkpoint, data: Path | None, protocol: Protocol) -> ScoredText:
    """Read a text and see that there is enough of it.

    Args:
        checkpoint: The model and its tokenizer.
        data: A file or folder as of `read_documents`. None: the embedded English prose.
        protocol: How it will be scored.

    Raises:
        ValueError: If the text cannot be read, or does not fill two rows after the context.
    """
    documents = read_documents(data)
    text = ScoredText(
        name=EMBEDDED_NAME if data is None else data.resolve().name,
        digest=digest_of(documents),
        store=TokenStore.from_documents(documents, checkpoint.tokenizer),
        chunk_size=checkpoint.model.chunk_size,
        protocol=protocol,
    )
    check_context(text.rows(protocol.settings.rows), protocol.settings.min_context)
    return text


def measure(model: CALM, text: ScoredText) -> Measurement:
    """Score a model; it is in evaluation mode meanwhile.

    Args:
        model: The model, on any device.
        text: By `text_to_score` of its checkpoint.
    """
    settings, seed = text.protocol.settings, text.protocol.seed
    rows = text.rows(settings.rows)
    evaluation = evaluate(model, rows, settings, seed=seed)
    return Measurement(
        head=type(model.head).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        brier_lm=evaluation.brier.brier_lm,
        brier=evaluation.brier.brier,
        not_positive=evaluation.brier.not_positive,
        energy_score=evaluation.energy_score,
        restored=_restored(model, rows),
        protocol=evaluation.protocol,
        text=text.name,
        digest=text.digest,
        seed=seed,
    )


def _restored(model: CALM, rows: EvaluationRows) -> float:
    batch = rows.batch.to(model.backbone.device)
    with evaluation_mode(model), torch.no_grad():
        same = reconstructed_tokens(model.autoencoder, batch.tokens)[batch.real]
    return float(same.double().mean())


def _plus_minus(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ± {estimate.standard_error:.2f}"
