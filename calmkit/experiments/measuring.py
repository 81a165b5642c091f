"""All measurements of a model: scores, sampler accuracy, continuations, speed, sample texts."""

from dataclasses import replace

import torch

from calmkit.accounting import costs_per_token
from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.diagnostics import noise_curve
from calmkit.evaluation import (
    PROMPT_TOKENS,
    NgramModel,
    Timing,
    choose,
    continue_rows,
    evaluate_ngrams,
    evaluate_unigram,
    microseconds_per_token,
    posteriors_of,
    prompts_of,
    restored_share,
    score,
    write_samples,
)
from calmkit.metrics import Estimate
from calmkit.models import CALM, LanguageModel
from calmkit.nn import evaluation_view
from calmkit.sampling import PlainSampler

from .evaluation_plan import EvaluationPlan
from .run_result import RunResult

__all__ = ["measure", "time_generation"]

# Standard deviations of the noise on a latent, relative to the spread of all latents.
_NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
_NOISE_DRAWS = 2


def measure(
    model: LanguageModel,
    plan: EvaluationPlan,
    *,
    trained_tokens: int | None = None,
    timed: bool = True,
) -> RunResult:
    """Evaluate a model on its device; fields about its training stay None unless given.

    Args:
        model: The model, which is not changed.
        plan: The text and the protocol.
        trained_tokens: Tokens of text in the batches of its training.
        timed: Whether to time its generation, after everything else.

    Raises:
        ValueError: If it is neither a CALM nor a TokenLM.
    """
    settings, seed, rows = plan.settings, plan.seed, plan.rows
    sampler = PlainSampler() if plan.sampler is None else plan.sampler
    found = score(model, rows, settings, seed=seed)
    batch = rows.batch.to(model.backbone.device)
    autoencoder = model.autoencoder if isinstance(model, CALM) else None
    evaluations = model.head.evaluations_per_sample if isinstance(model, CALM) else 1
    choices = choose(
        model, rows, sampler, found.documents, min_context=settings.min_context, seed=seed
    )
    accuracy = choices.documents.estimate(resamples=settings.bootstrap, seed=seed)[-1]
    costs = costs_per_token(model, plan.positions)
    result = RunResult(
        seed=plan.training_seed,
        steps=None,
        trained_tokens=trained_tokens,
        training_flops=None
        if costs is None or trained_tokens is None
        else costs.training * trained_tokens,
        training_seconds=None,
        brier_lm=found.brier.brier_lm,
        brier=found.brier.brier,
        documents=choices.documents,
        baselines=_baselines(plan),
        energy_score=found.energy_score,
        cross_entropy=found.cross_entropy,
        autoencoder_accuracy=None if autoencoder is None else restored_share(autoencoder, batch),
        noise_curve=() if autoencoder is None else _noise_curve(autoencoder, batch, seed),
        evaluations_per_sample=evaluations,
        sampling_flops=None if costs is None else costs.sampling,
        microseconds_per_token=None,
        draws_per_chunk=choices.draws_per_chunk,
        unsettled=choices.unsettled,
        chosen_accuracy=accuracy.scaled(100.0),
        continuations=continue_rows(
            model,
            plan.tokenizer,
            rows,
            sampler,
            min_context=settings.min_context,
            tokens=settings.continued,
            seed=seed,
        )
        if settings.continued
        else None,
        samples=write_samples(
            model,
            plan.tokenizer,
            prompts_of(rows, PROMPT_TOKENS),
            sampler=plan.sampler,
            max_new_tokens=plan.sample_tokens,
            sampling_flops=None if costs is None else costs.sampling,
            seed=plan.drawing_seed,
            training_text=plan.training_text,
        ),
        validation_losses=(),
        validation_brier=(),
        protocol=found.protocol,
    )
    if not timed:
        return result
    return replace(result, microseconds_per_token=time_generation(model, plan))


def time_generation(model: LanguageModel, plan: EvaluationPlan) -> Timing:
    """Microseconds per generated token with the plan's sampler.

    Args:
        model: The model, on any device.
        plan: The text, which provides a prompt, and the sampler.
    """
    prompt = plan.text.document(0)[:PROMPT_TOKENS].tolist()
    return microseconds_per_token(model, prompt, plan.sampler or PlainSampler())


def _baselines(plan: EvaluationPlan) -> dict[str, tuple[Estimate, ...]] | None:
    """Brier-1..4 of counting the training text, where it is known."""
    if (text := plan.training_text) is None:
        return None
    settings = {"rows": plan.rows, "settings": plan.settings, "seed": plan.seed}
    frequencies = torch.from_numpy(text.token_frequencies())
    found = {"unigram": evaluate_unigram(frequencies, **settings).brier}
    longest = 3 if text.vocab_size**3 < 2**63 else 2
    model = NgramModel.fit(text, order=longest)
    for order, name in ((2, "bigram"), (3, "trigram")):
        if order <= longest:
            found[name] = evaluate_ngrams(model.shorter(order), **settings).brier
    return found


def _noise_curve(
    autoencoder: ChunkAutoencoder, batch: ChunkBatch, seed: int
) -> tuple[tuple[float, float], ...]:
    full = batch.real.all(dim=-1)
    if not full.any():
        return ()
    tokens = batch.tokens[full]
    generator = torch.Generator(tokens.device).manual_seed(seed)
    shape = (_NOISE_DRAWS, len(tokens), autoencoder.latent_size)
    dtype = next(autoencoder.parameters()).dtype
    noise = torch.randn(shape, generator=generator, device=tokens.device, dtype=dtype)
    posterior = posteriors_of(autoencoder, batch)[full]
    curve = noise_curve(evaluation_view(autoencoder), posterior, tokens, noise, sizes=_NOISE)
    return tuple(zip(curve.sizes, curve.accuracy, strict=True))
