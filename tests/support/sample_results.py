"""Results of comparisons that were never run, for tests of what is made of results.

Scores are drawn, so that documents are hard or easy for all variants alike, as real ones are.
"""

import dataclasses
import functools
import math

import torch

from calmkit.comparison.results import ComparisonResult, Failure, TrialResult, VariantResult
from calmkit.evaluation import HELD_OUT, Continuations, SampleText, TextScores, Timing
from calmkit.experiments import Silent
from calmkit.experiments.run_result import RunResult
from calmkit.metrics import DocumentScores, Estimate

DOCUMENTS = 20
TRIGRAM = tuple(Estimate(*x) for x in ((4.5, 0.2), (0.3, 0.05), (0.02, 0.01), (2e-3, 1e-3)))
UNIGRAM = tuple(Estimate(*x) for x in ((0.89, 0.03), (0.02, 0.002), (2e-4, 0.0), (1e-5, 0.0)))
NOISE = tuple((0.25 * i, 1 / (1 + (0.2 * i) ** 4)) for i in range(9))
# What a model may well write.
HOSTILE = '[The value of] <script>alert(1)</script> & "quoted" $words </blockquote>'


class Told(Silent):
    """A display that keeps its notes."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def texts(*, softmax=False, hostile=False, quality=1.0):
    """Sample texts of one run, and the true text after the same prompts."""
    first = HOSTILE if hostile else "[The value of] a text, in\ntwo lines: ä"
    names = {1.0: "T = 1", 0.7: "T = 0.7", 0.5: "T = 1/2", 1 / 3: "T = 1/3"}
    if not softmax:
        del names[0.7]
    written = [
        SampleText(
            name=name,
            temperature=t,
            texts=(first, f"[It] is at {name}."),
            tokens=80,
            known_words=0.99 - 0.1 * t * quality,
            known_chunks=None if softmax else 0.9 - 0.2 * t,
            known_4grams=0.25,
            distinct=(0.5, (0.4 if softmax else 0.3) + 0.5 * t, 0.99),
        )
        for t, name in names.items()
    ]
    true = SampleText(
        name=HELD_OUT, temperature=None, texts=("[The value of] true text",), tokens=80,
        known_words=0.995, known_4grams=0.375, distinct=(0.6, 0.95, 1.0),
    )  # fmt: skip
    return (*written, true)


def _text_scores(chrf):
    values = chrf, chrf / 20, chrf / 10
    return TextScores(*(Estimate(x, 0.02 * x, (0.96 * x, 1.04 * x)) for x in values))


@functools.cache
def _scores(seed, quality, softmax):
    """The scores of a run, with their estimates, which take much longer than all the rest."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.full((DOCUMENTS, 6), 1000.0, dtype=torch.float64)
    hard = 0.5 + torch.rand(DOCUMENTS, 1, generator=generator, dtype=torch.float64)
    own = torch.Generator().manual_seed(1000 + seed)
    noise = 1 + 0.1 * torch.randn(DOCUMENTS, 5, generator=own, dtype=torch.float64)
    noise = torch.cat([noise, noise[:, :1]], dim=1)
    rates = torch.tensor([0.03, 0.004, 0.0007, 0.0002], dtype=torch.float64) * quality
    rates = torch.cat([rates, torch.tensor([3.2 / quality, 0.05 * quality], dtype=torch.float64)])
    loss = "cross_entropy" if softmax else "energy_score"
    documents = DocumentScores(
        names=("brier_1", "brier_2", "brier_3", "brier_4", loss, "chosen_accuracy"),
        sums=counts * rates * hard * noise,
        counts=counts,
        groups=tuple(range(DOCUMENTS)),
        unit="documents",
    )
    return documents, documents.estimate(resamples=50)


def run(seed=0, *, quality=1.0, speed=1.0, softmax=False, hostile=False, steps=400, **changes):
    """One run; `quality` scales its scores, `speed` its costs."""
    documents, estimates = _scores(seed, quality, softmax)
    brier = tuple(estimate.scaled(100.0) for estimate in estimates[:4])
    product = math.prod(max(score.value, 0.0) for score in brier)
    known = {
        "seed": seed,
        "steps": steps,
        "trained_tokens": 1_600_000,
        "training_flops": 2.5e13 * speed,
        "training_seconds": 81.25 * speed + seed,
        "brier_lm": product**0.25,
        "brier": brier,
        "documents": documents,
        "baselines": {"unigram": UNIGRAM, "trigram": TRIGRAM},
        "energy_score": None if softmax else estimates[4],
        "cross_entropy": estimates[4] if softmax else None,
        "autoencoder_accuracy": None if softmax else 0.99934,
        "noise_curve": () if softmax else NOISE,
        "evaluations_per_sample": None if softmax else max(1, round(20 * speed - 19)),
        "sampling_flops": 4e6 * speed,
        "microseconds_per_token": Timing(median=210.3 * speed, spread=8.4 * speed, repeats=5),
        "draws_per_chunk": 1.0,
        "unsettled": 0.0,
        "chosen_accuracy": estimates[5].scaled(100.0),
        "continuations": Continuations(
            model=_text_scores(24.0 * quality), other_text=_text_scores(17.0), rows=128, tokens=32
        ),
        "samples": texts(softmax=softmax, hostile=hostile),
        "validation_losses": tuple((40 * i, 5.5 / i + 0.1 * speed) for i in range(1, 11)),
        "validation_brier": tuple(
            (40 * i, 3.0 * quality * (1 - 3 * math.exp(-i / 2))) for i in range(1, 11)
        ),
        "protocol": "8 draws after 64 to 252 chunks of 4 tokens of true text, in 128 rows",
    }  # fmt: skip
    return RunResult(**(known | changes))


def variant(name="energy", *, seeds=(0,), failures=(), config="head: EnergyHead\n", **settings):
    """One variant with a run for each seed."""
    return VariantResult(
        name=name,
        head="EnergyHead",
        parameters=1_352_345,
        head_parameters=412_345,
        config=config,
        runs=tuple(run(seed, **settings) for seed in seeds),
        failures=tuple(Failure(seed=seed, reason=reason) for seed, reason in failures),
    )


def result(*variants, seeds=(0,), **changes):
    """A comparison of these variants; of `energy` and `flow` if there are none."""
    known = {
        "name": "heads",
        "variants": variants or (variant(seeds=seeds), variant("flow", seeds=seeds, quality=1.3)),
        "seeds": tuple(seeds),
        "budget": "steps",
        "corpus_name": "some text",
        "corpus_digest": "0123456789abcdef" * 4,
        "config": "seeds: [0]\nbudget: steps\nvariants:\n  energy: {head: EnergyHead}\n",
        "hardware": "x86_64 CPU, 2 of 2 threads",
        "versions": {"python": "3.11", "torch": "2.13"},
    }
    return ComparisonResult(**(known | changes))


def tuned():
    """Two variants with three trials each; one trial has failed."""
    found = []
    for name, scores in (("energy", (1.52, 2.61, None)), ("flow", (3.02, 2.93, 2.81))):
        trials = tuple(
            TrialResult(
                values={"optimizer.lr": rate},
                steps=40,
                brier_1=None if score is None else Estimate(score, 0.25),
                is_chosen=score == max(x for x in scores if x),
                failure="" if score else "loss is nan at step 7",
            )
            for rate, score in zip(("0.001", "0.003", "0.1"), scores, strict=True)
        )
        found.append(dataclasses.replace(variant(name), trials=trials))
    return result(*found, remarks=("Tuning: 3 trials of each variant.", "softmax: the FLOPs."))


def only_measured(**changes):
    """What `calmkit evaluate` finds: one model that was not trained here."""
    bare = dataclasses.replace(
        run(), steps=None, trained_tokens=None, training_flops=None, training_seconds=None,
        validation_losses=(), validation_brier=(), **changes,
    )  # fmt: skip
    return result(dataclasses.replace(variant("flow"), runs=(bare,)))


def negative(order, **settings):
    """A run in which one Brier-n is negative."""
    good = run(**settings)
    sums = good.documents.sums.clone()
    sums[:, order - 1] *= -1
    brier = list(good.brier)
    brier[order - 1] = Estimate(-brier[order - 1].value, brier[order - 1].standard_error)
    documents = dataclasses.replace(good.documents, sums=sums)
    return dataclasses.replace(good, documents=documents, brier=tuple(brier), brier_lm=0.0)


def ten(seeds=(0, 1, 2)):
    """Ten variants: one has failed, one has failed with one seed, one has a negative Brier-4."""
    names = (
        "energy", "flow-steps-4", "flow-steps-16", "diffusion-steps-25", "diffusion-steps-100",
        "meanflow", "mixture", "gaussian",
    )  # fmt: skip
    some = [
        variant(name, seeds=seeds, quality=0.7 + 0.1 * i, speed=1.0 + 0.4 * i)
        for i, name in enumerate(names)
    ]
    weak = dataclasses.replace(
        variant("energy-alpha-0.5-with-a-long-name"),
        runs=tuple(negative(4, seed=s, quality=0.4) for s in seeds),
    )
    lost = variant("flow-deep", seeds=(), failures=[(s, "loss is nan at step 17") for s in seeds])
    some[5] = variant("meanflow", seeds=seeds[:-1], failures=[(seeds[-1], "out of memory")])
    some[7] = variant("token_lm", seeds=seeds, softmax=True, quality=1.6, hostile=True)
    return result(*some, weak, lost, seeds=seeds, budget="flops", name="heads of many kinds")
