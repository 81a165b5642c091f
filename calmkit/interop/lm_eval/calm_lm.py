r"""CalmLM: a model of calmkit as a model of lm-evaluation-harness (version 0.4.13).

The harness asks a model for three things:

| request | `TokenLM` | a model that only gives draws, such as `CALM` |
|---|---|---|
| `generate_until` | yes | yes, by calmkit's samplers |
| `loglikelihood` | exact | refused, or a ranking of choices by the Brier score |
| `loglikelihood_rolling` | exact | refused |

A CALM has no likelihood of tokens: it would be the integral of the head's density over all latents
that decode to them. With `ranking_samples` the choices of a multiple-choice task are ranked by an
unbiased estimate of the Brier score of their chunks,

    1/T sum_t [1 - 2 P(y_t) + sum_x P(x)^2],    P: the model's next chunk, y_t: the choice's,

and the harness receives minus the score, higher is better. Only the metric `acc` has a meaning
then: not perplexities, and not `acc_norm`, since the score is a mean over chunks already. A
question is *undecided* if its best two choices differ by at most two standard errors of the draws.

Each text is preceded by the tokenizer's end token, as in training.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from calmkit.bounds import check_at_least
from calmkit.models import LanguageModel, Tokenizer, TokenLM, rank

from .questions import questions_of, undecided
from .task_settings import task_settings
from .token_likelihood import Pair, continuation_log_likelihoods
from .until import write_until

__all__ = ["CalmLM", "NoLikelihoodError"]

_OF_SAMPLERS = ("temperature", "top_k", "top_p")


class NoLikelihoodError(ValueError):
    """A task needs likelihoods, which the model does not have."""


class CalmLM(TemplateLM):
    """Answers the harness's requests with a calmkit model; give it to `simple_evaluate`.

    Attributes:
        model: The model.
        undecided: Number of questions of the latest ranking whose best two choices are undecided.
        questions: Number of questions of the latest ranking.
        cut_contexts: Number of contexts that were cut on the left, for a model with a limited
            number of positions.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        temperature: float | None = None,
        candidates: int = 64,
        ranking_samples: int | None = None,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        """Wrap a model, which stays on its device.

        Args:
            model: A `TokenLM`, `CALM` or other language model.
            tokenizer: Its tokenizer.
            temperature: Temperature of all generations; 0 is greedy. None: as each task asks.
            candidates: Draws per chunk at temperatures below 1.
            ranking_samples: Draws per chunk for ranking choices, a multiple of 8. None: refuse
                tasks that need likelihoods, unless the model has them.
            max_new_tokens: Length of generations whose task sets none.
            batch_size: Number of texts that are generated or scored together.
            seed: The same seed gives the same answers to the same requests.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__()
        check_at_least(1, max_new_tokens=max_new_tokens, batch_size=batch_size)
        check_at_least(0, seed=seed)
        self.model, self._tokenizer = model, tokenizer
        self._temperature, self._candidates = temperature, candidates
        model.sampler_at(temperature or 0.0, candidates=candidates)
        self._ranking_samples = ranking_samples
        self._max_new_tokens, self._batch_size, self._seed = max_new_tokens, batch_size, seed
        self._device = model.backbone.device
        self.undecided = self.questions = self.cut_contexts = 0

    @property
    def eot_token_id(self) -> int:
        """The token at both ends of a document."""
        return self._tokenizer.end_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text, after an end token unless `add_special_tokens` is False."""
        tokens = self._tokenizer.encode(string)
        return tokens if add_special_tokens is False else [self._tokenizer.end_id, *tokens]

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into `results["config"]`."""
        return {
            "model": type(self.model).__name__,
            "chunk_size": self.model.chunk_size,
            "temperature": "as the task asks" if self._temperature is None else self._temperature,
            "candidates": self._candidates,
            "ranking_samples": self._ranking_samples,
            "undecided_questions": self.undecided,
            "ranked_questions": self.questions,
            "cut_contexts": self.cut_contexts,
        }

    def generate_until(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[str]:
        """Continue contexts until a stop text, at each task's temperature or the model's.

        Raises:
            ValueError: If a task asks for a setting that is unknown, out of range or impossible
                for this model.
        """
        asked = [
            task_settings(
                one.arguments[1],
                temperature=self._temperature,
                max_new_tokens=self._max_new_tokens,
            )
            for one in requests
        ]
        samplers = [
            self.model.sampler_at(
                candidates=self._candidates,
                **{name: one[name] for name in _OF_SAMPLERS if name in one},
            )
            for one in asked
        ]
        prompts = [self.tok_encode(one.arguments[0]) for one in requests]
        # Long prompts first, so that a batch that does not fit in memory fails at once.
        order = sorted(range(len(requests)), key=lambda i: (repr(asked[i]), -len(prompts[i])))
        generator = torch.Generator(self.device).manual_seed(self._seed)
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            for _, same in itertools.groupby(order, key=lambda i: repr(asked[i])):
                for rows in _batches(list(same), self._batch_size):
                    settings = asked[rows[0]]
                    count = settings["max_gen_toks"]
                    written = write_until(
                        self.model,
                        self._tokenizer,
                        [self._fitting(prompts[i], count) for i in rows],
                        until=settings["until"],
                        max_new_tokens=count,
                        sampler=samplers[rows[0]],
                        generator=generator,
                    )
                    texts.update(zip(rows, written, strict=True))
                    bar.update(len(rows))
        return [texts[i] for i in range(len(requests))]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods in nats of a softmax; minus Brier scores, to rank choices, of others.

        Raises:
            NoLikelihoodError: If the model has no likelihood, and ranking is off or the task has
                no choices to rank.
        """
        if isinstance(self.model, TokenLM):
            return super().loglikelihood(requests, disable_tqdm)
        if self._ranking_samples is None:
            raise self._no_likelihood(
                "To measure the accuracy of multiple-choice tasks, and nothing else, give "
                "ranking_samples, for instance 64: choices are then ranked by the Brier score."
            )
        questions = questions_of(requests)
        if alone := next((task for task, choices in questions if len(choices) < 2), ""):
            raise self._no_likelihood(f"Task {alone} has single texts and no choices to rank.")
        generator = torch.Generator(self.device).manual_seed(self._seed)
        scores = []
        for one in tqdm(requests, desc="ranking", disable=disable_tqdm):
            context, continuation = self._pair(*one.arguments)
            (ranked,) = rank(
                self.model,
                self._fitting(context, len(continuation)),
                [continuation],
                num_samples=self._ranking_samples,
                generator=generator,
            )
            scores.append(ranked)
        self.questions = len(questions)
        self.undecided = sum(undecided([scores[i] for i in places]) for _, places in questions)
        return [(-one.score, False) for one in scores]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole documents, in nats, given the end token before them.

        Raises:
            NoLikelihoodError: If the model has no likelihood.
        """
        found = []
        for one in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            tokens = self._tokenizer.encode(one.arguments[0])
            windows = get_rolling_token_windows(
                tokens,
                self.prefix_token_id,
                self.model.backbone.max_positions or max(1, len(tokens)),
                1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            found.append(sum(value for value, _ in self._scored(pairs)))
        return found

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [(self._fitting(a, len(b) - 1), b) for _, a, b in requests]
        return self._scored(pairs, disable_tqdm)

    def _scored(
        self, pairs: Sequence[Pair], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Exact log-likelihoods."""
        if not isinstance(self.model, TokenLM):
            raise self._no_likelihood("Use `calmkit evaluate`, which reports BrierLM.")
        with tqdm(total=len(pairs), desc="loglikelihood", disable=disable_tqdm) as bar:
            return continuation_log_likelihoods(
                self.model, pairs, batch_size=self._batch_size, note=bar.update
            )

    def _pair(self, context: str, continuation: str) -> Pair:
        if context:
            return self._encode_pair(context, continuation)
        return [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)

    def _fitting(self, context: list[int], new_tokens: int) -> list[int]:
        """The end of a context, so that it and the new tokens fit into the positions."""
        most, size = self.model.backbone.max_positions, self.model.chunk_size
        if most is None:
            return context
        room = (most - -(-new_tokens // size)) * size
        if room < 1:
            raise ValueError(
                f"max_gen_toks must leave room for a context in the {most} positions of the "
                f"backbone, {most * size} tokens, as must a choice; got {new_tokens}."
            )
        self.cut_contexts += len(context) > room
        return context[-room:]

    def _no_likelihood(self, remedy: str) -> NoLikelihoodError:
        return NoLikelihoodError(
            f"model must be a TokenLM for likelihoods; a {type(self.model).__name__} gives draws, "
            f"and the probability of a text is not computable. {remedy}"
        )


def _batches(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
