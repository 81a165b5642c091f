"""Scores of a saved model that comes without the config of a run.

A folder of `calmkit train` says which text was held out and how it is scored. A published model,
or one that `calmkit.save` wrote, does not: the text is given, or is the embedded English prose,
and the protocol is given too. Both stand beside the numbers, which mean nothing without them. The
model's own tokenizer turns the text into tokens. What the model was trained on is not known here:
on text that it has seen, it scores too well.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from calmkit.data import EvaluationRows, TokenStore, evaluation_rows
from calmkit.evaluation import EvaluationSettings, SoftmaxEvaluation
from calmkit.evaluation.scored_text import check_context
from calmkit.evaluation.scores import restored_share, score
from calmkit.experiments.model_folder import Checkpoint
from calmkit.experiments.preparing import text_to_measure
from calmkit.files import replace_file
from calmkit.metrics import Estimate
from calmkit.models import CALM, LanguageModel
from calmkit.text import EMBEDDED_NAME

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

    @classmethod
    def of_options(cls, *, positions: int | None, **settings: int | None) -> "Protocol":
        """Whatever is not None, and defaults.

        Args:
            positions: Chunks in a row.
            settings: Fields of `EvaluationSettings`.

        Raises:
            ValueError: If one is out of range.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        chosen = EvaluationSettings(**given)
        more = {} if positions is None else {"positions": positions}
        return cls(settings=chosen, **more)


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
    """What was found.

    Attributes:
        kind: Class of the head, or of a model without one.
        parameters: Of the whole model.
        brier_lm: In per cent, higher is better; 0 where it is undefined.
        brier: Brier-1 to 4, in per cent.
        not_positive: The n whose Brier-n is not positive, which leaves BrierLM undefined.
        others: Scores of which lower is better: the energy score of drawn latents against the
            posteriors, or the cross entropy of a softmax in nats per token.
        restored: Share of the tokens that the autoencoder gives back; None without one.
        protocol: How it was measured, in a sentence.
        text: Name of the text.
        digest: SHA-256 of the text.
        seed: Decides rows and draws.
    """

    kind: str
    parameters: int
    brier_lm: float
    brier: tuple[Estimate, ...]
    not_positive: tuple[int, ...]
    others: dict[str, Estimate]
    restored: float | None
    protocol: str
    text: str
    digest: str
    seed: int

    def to_text(self) -> str:
        """A few lines to print."""
        lines = [
            f"{self.kind}, {self.parameters / 1e6:.4g} million parameters in all",
            f"BrierLM       {self.brier_lm:.2f} %  (higher is better)",
            *(f"Brier-{n}       {_plus_minus(one)} %" for n, one in enumerate(self.brier, 1)),
            *(f"{name:13} {_plus_minus(x)}  (lower is better)" for name, x in self.others.items()),
        ]
        if self.not_positive:
            which = ", ".join(map(str, self.not_positive))
            lines.append(f"BrierLM is 0: it needs a positive Brier-n; not so for n = {which}.")
        if self.restored is not None:
            lines.append(f"Autoencoder: {100 * self.restored:.2f} % of the tokens restored.")
        return "\n".join([
            *lines,
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
        replace_file(path, text + "\n")


def text_to_score(checkpoint: Checkpoint, data: Path | None, protocol: Protocol) -> ScoredText:
    """Read a text and see that there is enough of it.

    Args:
        checkpoint: The model and its tokenizer.
        data: As in `text_to_measure`. None: the embedded English prose.
        protocol: How it will be scored.

    Raises:
        ValueError: If the text cannot be read, or does not fill two rows after the context.
    """
    store, digest = text_to_measure(data, checkpoint.tokenizer)
    text = ScoredText(
        name=EMBEDDED_NAME if data is None else data.resolve().name,
        digest=digest,
        store=store,
        chunk_size=checkpoint.model.chunk_size,
        protocol=protocol,
    )
    check_context(text.rows(protocol.settings.rows), protocol.settings.min_context)
    return text


def measure(model: LanguageModel, text: ScoredText) -> Measurement:
    """Score a model in evaluation mode, whichever mode it is in; it is left as it is.

    Args:
        model: A `CALM` or a `TokenLM`, on any device.
        text: By `text_to_score` of its checkpoint.

    Raises:
        ValueError: If it is another kind of model.
    """
    settings, seed = text.protocol.settings, text.protocol.seed
    rows = text.rows(settings.rows)
    found = score(model, rows, settings, seed=seed)
    if isinstance(found, SoftmaxEvaluation):
        others = {"cross entropy": found.cross_entropy}
    else:
        others = {"energy score": found.energy_score}
    kind, restored = type(model).__name__, None
    if isinstance(model, CALM):
        kind = type(model.head).__name__
        restored = restored_share(model.autoencoder, rows.batch.to(model.backbone.device))
    return Measurement(
        kind=kind,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        brier_lm=found.brier.brier_lm,
        brier=found.brier.brier,
        not_positive=found.brier.not_positive,
        others=others,
        restored=restored,
        protocol=found.protocol,
        text=text.name,
        digest=text.digest,
        seed=seed,
    )


def _plus_minus(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ± {estimate.standard_error:.2f}"
