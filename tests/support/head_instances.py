"""One table of all heads: what the tests build, train and change of each.

A new head needs a row here, with every field; the completeness test of the contracts sees to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calmkit.heads import (
    BlockwiseHead,
    ContrastiveHead,
    CosineSchedule,
    DDIMSampler,
    DDPMSampler,
    DiffusionHead,
    DriftingHead,
    EnergyHead,
    EulerSolver,
    FixedVariance,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GaussianNoise,
    GuidedHead,
    Head,
    LogitNormalTimes,
    MeanFlowHead,
    MeanShiftDrift,
    MidpointSolver,
    MinSNRWeighting,
    MixtureHead,
    NoisePrediction,
    SplineFlowHead,
    TiedMixtureHead,
)
from calmkit.scoring import EnergyScore, LaplaceKernel

SMALL = {"width": 8, "depth": 2}
NARROW = {"width": 6, "depth": 1}
# Another noise temperature than without one.
COOLER = {"noise_scale": 0.5, "truncation": 1.5}
LEARNING = {"width": 32, "depth": 2}
# The spread of the contrastive head, which no training moves.
TEMPERATURE = 0.3


@dataclass(frozen=True, kw_only=True)
class KnownHead:
    """What the tests know of a head.

    Attributes:
        small: Builds one from `(cond_size, latent_size)` that is quick to run.
        learner: Builds one that learns laws of two dimensions in some hundred steps.
        others: Another value of each of its own arguments than `small` was built with.
        network: The module that runs once for each evaluation of the head's network; with `*`,
            all modules that do.
        one_mode: Whether its laws have one mode, so that it cannot learn others.
        guided: Whether its samples can be guided at any scale.
    """

    small: Callable[[int, int], Head]
    learner: Callable[[int, int], Head]
    others: dict[str, Any]
    network: str
    one_mode: bool = False
    guided: bool = False


def energy_head(cond, latent):
    return EnergyHead(cond, latent, **SMALL, noise_size=3, num_samples=3, rule=EnergyScore(0.7))


def energy_learner(cond, latent):
    return EnergyHead(cond, latent, **LEARNING, noise_size=8)


def tied_mixture(cond, latent):
    return TiedMixtureHead(cond, latent, **SMALL, components=4)


def tied_mixture_learner(cond, latent):
    return TiedMixtureHead(cond, latent, **LEARNING, components=16)


KNOWN_HEADS = {
    EnergyHead: KnownHead(
        small=energy_head,
        learner=energy_learner,
        others={
            **NARROW,
            "noise_size": 4,
            "num_samples": 4,
            "noise": GaussianNoise(),
            "rule": EnergyScore(1.3),
            "noise_scale": 0.5,
        },
        network="output",
        guided=True,
    ),
    DriftingHead: KnownHead(
        small=lambda cond, latent: DriftingHead(
            cond, latent, **SMALL, noise_size=3, num_samples=3
        ),
        learner=lambda cond, latent: DriftingHead(cond, latent, **LEARNING, noise_size=8),
        others={
            **NARROW,
            "noise_size": 4,
            "num_samples": 4,
            "noise": GaussianNoise(),
            "drift": MeanShiftDrift(LaplaceKernel([0.3, 1.0])),
            "noise_scale": 0.5,
        },
        network="output",
        guided=True,
    ),
    FlowHead: KnownHead(
        small=lambda cond, latent: FlowHead(
            cond, latent, **SMALL, draws=2, solver=MidpointSolver(2)
        ),
        learner=lambda cond, latent: FlowHead(cond, latent, **LEARNING),
        others={
            **NARROW,
            "draws": 3,
            "solver": EulerSolver(2),
            "times": LogitNormalTimes(),
            **COOLER,
        },
        network="velocity",
        guided=True,
    ),
    DiffusionHead: KnownHead(
        small=lambda cond, latent: DiffusionHead(
            cond,
            latent,
            **SMALL,
            draws=2,
            schedule=CosineSchedule(9),
            sampler=DDPMSampler(2),
        ),
        learner=lambda cond, latent: DiffusionHead(
            cond, latent, **LEARNING, schedule=CosineSchedule(200), sampler=DDPMSampler(50)
        ),
        others={
            **NARROW,
            "draws": 3,
            "schedule": CosineSchedule(7),
            "prediction": NoisePrediction(),
            "variance": FixedVariance(),
            "weighting": MinSNRWeighting(0.5),
            "sampler": DDIMSampler(3),
            **COOLER,
        },
        network="network",
        guided=True,
    ),
    MeanFlowHead: KnownHead(
        small=lambda cond, latent: MeanFlowHead(
            cond, latent, **SMALL, draws=3, jumps=1, steps=2, power=0.5
        ),
        learner=lambda cond, latent: MeanFlowHead(cond, latent, **LEARNING),
        others={
            **NARROW,
            "draws": 4,
            "jumps": 2,
            "steps": 3,
            "times": LogitNormalTimes(),
            "power": 0.0,
            "own_velocity": True,
            **COOLER,
        },
        network="velocity",
        guided=True,
    ),
    FlowMapHead: KnownHead(
        small=lambda cond, latent: FlowMapHead(cond, latent, **SMALL, draws=3, jumps=1, steps=2),
        learner=lambda cond, latent: FlowMapHead(cond, latent, **LEARNING),
        others={
            **NARROW,
            "draws": 4,
            "jumps": 2,
            "steps": 3,
            "times": LogitNormalTimes(),
            **COOLER,
        },
        network="velocity",
        guided=True,
    ),
    GaussianHead: KnownHead(
        small=lambda cond, latent: GaussianHead(cond, latent, **SMALL),
        learner=lambda cond, latent: GaussianHead(cond, latent, **LEARNING),
        others={**NARROW, "std": 0.5, "min_std": 0.1},
        network="network",
        one_mode=True,
    ),
    MixtureHead: KnownHead(
        small=lambda cond, latent: MixtureHead(cond, latent, **SMALL, components=3, rank=1),
        learner=lambda cond, latent: MixtureHead(cond, latent, **LEARNING, components=16),
        others={**NARROW, "components": 2, "rank": 2, "draws": 5, "min_std": 0.1},
        network="network",
    ),
    TiedMixtureHead: KnownHead(
        small=tied_mixture,
        learner=tied_mixture_learner,
        others={**NARROW, "components": 3, "draws": 2, "min_std": 0.1},
        network="network",
    ),
    SplineFlowHead: KnownHead(
        small=lambda cond, latent: SplineFlowHead(
            cond, latent, width=8, depth=1, transforms=2, bins=4, passes=None
        ),
        learner=lambda cond, latent: SplineFlowHead(cond, latent, **LEARNING),
        others={
            **NARROW,
            "depth": 2,
            "transforms": 3,
            "bins": 5,
            "passes": 2,
            "draws": 3,
            **COOLER,
        },
        network="flow.transform.transforms.0.hyper",
    ),
    ContrastiveHead: KnownHead(
        small=ContrastiveHead,
        learner=lambda cond, latent: ContrastiveHead(cond, latent, temperature=TEMPERATURE),
        others={"margin": 1.0, "distance": 2.0, "negatives": 3, "temperature": 0.5},
        network="center",
        one_mode=True,
    ),
    GuidedHead: KnownHead(
        # Hides many conditions, so that the null condition has a gradient in a small batch too.
        small=lambda cond, latent: GuidedHead(
            cond, latent, head=energy_head, scale=2.0, dropout=0.5
        ),
        learner=lambda cond, latent: GuidedHead(cond, latent, head=energy_learner),
        others={"head": FlowHead, "scale": 3.0, "dropout": 0.2},
        network="head.output",
    ),
    BlockwiseHead: KnownHead(
        # A block for each dimension divides any latent.
        small=lambda cond, latent: BlockwiseHead(cond, latent, head=tied_mixture, blocks=latent),
        learner=lambda cond, latent: BlockwiseHead(cond, latent, head=tied_mixture_learner),
        others={"head": FlowHead, "blocks": 1},
        network="heads.*.network",
    ),
}
HEADS = {kind: known.small for kind, known in KNOWN_HEADS.items()}
OTHER_ARGUMENTS = {kind: known.others for kind, known in KNOWN_HEADS.items()}
NETWORKS = {kind: known.network for kind, known in KNOWN_HEADS.items()}
