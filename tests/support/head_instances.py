"""Small instances of every head; the completeness test keeps this list whole."""

from calmkit.heads import (
    ContrastiveHead,
    DDIMSampler,
    DDPMSampler,
    DiffusionHead,
    EnergyHead,
    EulerSolver,
    FixedVariance,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GaussianNoise,
    GuidedHead,
    LogitNormalTimes,
    MeanFlowHead,
    MidpointSolver,
    MinSNRWeighting,
    MixtureHead,
    NoisePrediction,
    NoiseSchedule,
)
from calmkit.scoring import EnergyScore


def energy_head(cond, latent):
    return EnergyHead(
        cond, latent, width=8, depth=2, noise_size=3, num_samples=3, rule=EnergyScore(0.7)
    )


HEADS = {
    EnergyHead: energy_head,
    FlowHead: lambda cond, latent: FlowHead(
        cond, latent, width=8, depth=2, draws=2, solver=MidpointSolver(2)
    ),
    DiffusionHead: lambda cond, latent: DiffusionHead(
        cond,
        latent,
        width=8,
        depth=2,
        draws=2,
        schedule=NoiseSchedule.cosine(9),
        sampler=DDPMSampler(2),
    ),
    MeanFlowHead: lambda cond, latent: MeanFlowHead(
        cond, latent, width=8, depth=2, draws=3, jumps=1, steps=2, power=0.5
    ),
    FlowMapHead: lambda cond, latent: FlowMapHead(
        cond, latent, width=8, depth=2, draws=3, jumps=1, steps=2
    ),
    GaussianHead: lambda cond, latent: GaussianHead(cond, latent, width=8, depth=2),
    MixtureHead: lambda cond, latent: MixtureHead(
        cond, latent, width=8, depth=2, components=3, rank=1
    ),
    ContrastiveHead: ContrastiveHead,
    # Hides many conditions, so that the null condition has a gradient in a small batch too.
    GuidedHead: lambda cond, latent: GuidedHead(
        cond, latent, head=energy_head, scale=2.0, dropout=0.5
    ),
}

# Of each head's own arguments another value than its instance above was built with.
OTHER_ARGUMENTS = {
    EnergyHead: {
        "width": 6,
        "depth": 1,
        "noise_size": 4,
        "num_samples": 4,
        "noise": GaussianNoise(),
        "rule": EnergyScore(1.3),
        "noise_scale": 0.5,
    },
    FlowHead: {
        "width": 6,
        "depth": 1,
        "draws": 3,
        "solver": EulerSolver(2),
        "times": LogitNormalTimes(),
    },
    DiffusionHead: {
        "width": 6,
        "depth": 1,
        "draws": 3,
        "schedule": NoiseSchedule.cosine(7),
        "prediction": NoisePrediction(),
        "variance": FixedVariance(),
        "weighting": MinSNRWeighting(0.5),
        "sampler": DDIMSampler(3),
    },
    MeanFlowHead: {
        "width": 6,
        "depth": 1,
        "draws": 4,
        "jumps": 2,
        "steps": 3,
        "times": LogitNormalTimes(),
        "power": 0.0,
        "own_velocity": True,
    },
    FlowMapHead: {
        "width": 6,
        "depth": 1,
        "draws": 4,
        "jumps": 2,
        "steps": 3,
        "times": LogitNormalTimes(),
    },
    GaussianHead: {"width": 6, "depth": 1, "std": 0.5, "min_std": 0.1},
    MixtureHead: {
        "width": 6,
        "depth": 1,
        "components": 2,
        "rank": 2,
        "draws": 5,
        "min_std": 0.1,
    },
    ContrastiveHead: {"margin": 1.0, "distance": 2.0, "negatives": 3, "temperature": 0.5},
    GuidedHead: {"head": FlowHead, "scale": 3.0, "dropout": 0.2},
}

# The module that runs once for each evaluation of a head's network.
NETWORKS = {
    EnergyHead: "output",
    FlowHead: "velocity",
    DiffusionHead: "network",
    MeanFlowHead: "velocity",
    FlowMapHead: "velocity",
    GaussianHead: "network",
    MixtureHead: "network",
    ContrastiveHead: "center",
    GuidedHead: "head.output",
}
