"""Small instances of every head; the completeness test keeps this list whole."""

from calmkit.heads import DiffusionHead, EnergyHead, FlowHead
from calmkit.scoring import EnergyScore

HEADS = {
    EnergyHead: lambda cond, latent: EnergyHead(
        cond, latent, width=8, depth=2, noise_size=3, num_samples=3, rule=EnergyScore(0.7)
    ),
    FlowHead: lambda cond, latent: FlowHead(cond, latent, width=8, depth=2, draws=2, steps=3),
    DiffusionHead: lambda cond, latent: DiffusionHead(
        cond, latent, width=8, depth=2, draws=2, steps=4, training_steps=9
    ),
}

# The module that runs once for each evaluation of a head's network.
NETWORKS = {EnergyHead: "output", FlowHead: "velocity", DiffusionHead: "network"}
