"""Small instances of every head; the completeness test keeps this list whole."""

from calmkit.heads import (
    ContrastiveHead,
    DDPMSampler,
    DiffusionHead,
    EnergyHead,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GuidedHead,
    MeanFlowHead,
    MidpointSolver,
    MixtureHead,
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
        cond, latent, width=8, depth=2, draws=2, solver=MidpointSolver(3)
    ),
    DiffusionHead: lambda cond, latent: DiffusionHead(
        cond,
        latent,
        width=8,
        depth=2,
        draws=2,
        schedule=NoiseSchedule.cosine(9),
        sampler=DDPMSampler(4),
    ),
    MeanFlowHead: lambda cond, latent: MeanFlowHead(
        cond, latent, width=8, depth=2, draws=2, jumps=1, steps=2, power=0.5
    ),
    FlowMapHead: lambda cond, latent: FlowMapHead(
        cond, latent, width=8, depth=2, draws=2, steps=2
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
