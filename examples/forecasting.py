"""Forecasting: proper scores as losses of a plain network, against a Gaussian likelihood.

We forecast two quantities at once, given three features. The outcome is skewed, its spread depends
on the features, and its coordinates depend on each other in a curved way. A network of features
and noise learns the whole distribution from the energy score or the kernel score. A Gaussian with
full likelihood training learns the mean and spread only.

A forecast is calibrated if the outcome looks like one more sample of it. Then the rank of the
outcome among the samples is uniform (a flat histogram), and an 80 % interval contains 80 % of the
outcomes.

    python examples/forecasting.py      writes forecasting.png
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from calmkit.scoring import (
    EnergyScore,
    GaussianKernel,
    KernelScore,
    ScoringRule,
    median_heuristic,
)

STEPS, BATCH, SAMPLES = 2000, 128, 8


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features (count, 3) and outcomes (count, 2)."""
    x = torch.randn(count, 3, generator=generator)
    spread = 0.2 + nn.functional.softplus(x[:, 1])
    noise = torch.rand(count, 2, generator=generator)
    skewed = -noise[:, 0].clamp_min(1e-6).log() - 1  # exponential, with mean zero
    first = x[:, 0] + spread * skewed
    second = 0.5 * first**2 / (1 + first.abs()) + x[:, 2] + 0.5 * (noise[:, 1] - 0.5)
    return x, torch.stack([first, second], dim=-1)


class NoiseNetwork(nn.Module):
    """A plain network whose output is a sample: of the features, and of noise."""

    def __init__(self, width: int = 64, noise: int = 4) -> None:
        super().__init__()
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(3 + noise, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def sample(self, x: Tensor, count: int) -> Tensor:
        """Samples (count, batch, 2)."""
        x = x.expand(count, *x.shape)
        return self.layers(torch.cat([x, torch.randn(*x.shape[:-1], self.noise)], dim=-1))


class GaussianNetwork(nn.Module):
    """The usual forecast: a mean and a standard deviation for each quantity."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )

    def law(self, x: Tensor) -> torch.distributions.Normal:
        mean, log_std = self.layers(x).chunk(2, dim=-1)
        return torch.distributions.Normal(mean, log_std.clamp(-5, 3).exp())

    def sample(self, x: Tensor, count: int) -> Tensor:
        return self.law(x).sample((count,))


def train_with(rule: ScoringRule) -> NoiseNetwork:
    """Minimise a scoring rule; this is all that changes in a training loop."""
    network, generator = NoiseNetwork(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        x, y = draw(BATCH, generator)
        loss = rule.score(network.sample(x, SAMPLES), y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def train_gaussian() -> GaussianNetwork:
    """Maximise the likelihood."""
    network, generator = GaussianNetwork(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        x, y = draw(BATCH, generator)
        loss = -network.law(x).log_prob(y).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def main() -> None:
    """Train three forecasts, measure their calibration, and draw it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # A kernel looks at some scales: here at the typical distance of two outcomes, and below it.
    typical = median_heuristic(draw(500, torch.Generator().manual_seed(2))[1])
    kernel = GaussianKernel([typical / 4, typical / 2, typical])
    with torch.enable_grad():
        forecasts = {
            "energy score": train_with(EnergyScore()),
            "kernel score": train_with(KernelScore(kernel)),
            "Gaussian likelihood": train_gaussian(),
        }
    x, y = draw(4000, torch.Generator().manual_seed(1))
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 4.6), sharex="row", sharey="row")
    for (name, network), column in zip(forecasts.items(), axes.T, strict=True):
        samples = network.sample(x, 99)
        score = EnergyScore().score(samples, y)
        rank = (samples < y).sum(dim=0)  # 0 to 99, uniform if calibrated
        low, high = samples.quantile(torch.tensor([0.1, 0.9]), dim=0)
        covered = ((y >= low) & (y <= high)).float().mean(dim=0)
        error = score.std() / len(score) ** 0.5
        print(
            f"{name:20} energy score {score.mean():.4f} ± {error:.4f}   "
            f"in the 80 % interval: {covered[0]:.1%} and {covered[1]:.1%}"
        )
        column[0].hist(rank[:, 0].numpy(), bins=20, range=(0, 100), density=True)
        column[0].axhline(0.01, color="black", linewidth=1)
        column[0].set(
            title=f"loss: {name}\nheld-out energy score {score.mean():.3f}",
            xlabel="rank of the truth",
        )
        one = torch.zeros(1, 3)
        column[1].scatter(*network.sample(one, 600)[:, 0].T, s=3, alpha=0.5)
        column[1].set(xlabel="first quantity")
    axes[0, 0].set_ylabel("share")
    axes[1, 0].set_ylabel("second quantity")
    figure.tight_layout()
    figure.savefig("forecasting.png", dpi=80)


if __name__ == "__main__":
    main()
