# %% [markdown]
# # A head of one's own in ten minutes
#
# A head is a conditional sampler of vectors: it is trained on pairs of a condition and a vector,
# and then draws vectors for a condition. Here we write one, check it with the contract suite, and
# compare it with three heads of calmkit. It needs `pip install 'calmkit[examples]'`.

# %%
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.distributions import Target
from calmkit.heads import EnergyHead, FlowHead, GaussianHead, Head, check_num_samples
from calmkit.scoring import EnergyScore
from calmkit.testing import check_part
from calmkit.typing import typed

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## Write
#
# The head below maps noise and the condition to a sample, $x = f(c, \varepsilon)$, and is trained
# with a scoring rule. A scoring rule compares samples with the true vector. If it is strictly
# proper, its expectation is lowest exactly when the samples follow the true distribution, so any
# function that can be sampled can be trained, without a likelihood.
#
# Two methods and one property are all that a head must have. `@typed` checks shapes at each call.


# %%
class NoiseHead(Head):
    """A plain network of the condition and noise, trained with the energy score."""

    def __init__(self, cond_size: int, latent_size: int, *, width: int = 64) -> None:
        super().__init__(cond_size, latent_size)
        self.rule = EnergyScore()
        self.network = nn.Sequential(
            nn.Linear(cond_size + latent_size, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, latent_size),
        )

    @property
    def evaluations_per_sample(self) -> int:
        return 1

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        self._check_cond(cond)
        check_num_samples(num_samples)
        cond = cond.expand(num_samples, *cond.shape)
        shape = (*cond.shape[:-1], self.latent_size)
        noise = torch.randn(shape, generator=generator, dtype=cond.dtype, device=cond.device)
        return self.network(torch.cat([cond, noise], dim=-1))

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        target = self._checked_target(target)
        return self.rule.score(self.sample(cond, 8, generator), target, generator)


# %% [markdown]
# ## Check
#
# The suite puts the head through small experiments: does each parameter receive a gradient, does
# each position see its own condition only, do equal seeds give equal numbers, does it compile? A
# failure says what was called, seen and expected. The profile `standard` also trains the head
# briefly on laws whose mean, spread and shape are known.

# %%
report = check_part("head", NoiseHead, profile="quick")
print(report)
assert report.passed

# %% [markdown]
# ## Compare
#
# The condition is an angle. The vector lies on one of two arcs, on opposite sides of the circle,
# so no single Gaussian can describe it.


# %%
def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    cond = torch.stack([angle.cos(), angle.sin()], dim=-1)
    side = torch.pi * torch.randint(2, (count,), generator=generator)
    place = angle + side + 0.5 * torch.randn(count, generator=generator)
    radius = 1.5 + 0.1 * torch.randn(count, generator=generator)
    return cond, radius[:, None] * torch.stack([place.cos(), place.sin()], dim=-1)


def train(head: Head, steps: int = 700) -> Head:
    generator = torch.Generator().manual_seed(0)  # the same data for every head
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(steps):
        cond, vectors = draw(128, generator)
        loss = head.loss(cond, vectors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


heads = {
    "NoiseHead (ours)": NoiseHead(2, 2),
    "EnergyHead": EnergyHead(2, 2, width=64, depth=2, noise_size=2),
    "FlowHead": FlowHead(2, 2, width=64, depth=2),
    "GaussianHead": GaussianHead(2, 2, width=64, depth=2),
}
for head in heads.values():
    train(head)

# %% [markdown]
# Losses of different heads have different scales. All heads can be sampled, though, so one proper
# score on held-out pairs compares them: lower is better. The difference to our head is taken pair
# by pair, which removes the noise that all heads share.

# %%
cond, vectors = draw(2000, torch.Generator().manual_seed(1))
scores = {}
with torch.no_grad():
    for name, head in heads.items():
        scores[name] = EnergyScore().score(head.sample(cond, 32), vectors)
ours = scores["NoiseHead (ours)"]
for name, score in scores.items():
    apart = score - ours
    error = apart.std() / len(apart) ** 0.5
    print(f"{name:17} {score.mean():.4f}   to ours {apart.mean():+.4f} ± {error:.4f}")

# %%
figure, axes = plt.subplots(1, 5, figsize=(12.5, 3.1), sharex=True, sharey=True)
one = torch.tensor([[1.0, 0.0]])  # the condition: an angle of zero
side = torch.pi * torch.randint(2, (500,))
place = side + 0.5 * torch.randn(500)
truth = (1.5 + 0.1 * torch.randn(500))[:, None] * torch.stack([place.cos(), place.sin()], dim=-1)
panels = {"true vectors": truth}
with torch.no_grad():
    for name, head in heads.items():
        panels[f"{name}\nenergy score {scores[name].mean():.3f}"] = head.sample(one, 500)[:, 0]
for axis, (title, points) in zip(axes, panels.items(), strict=True):
    axis.scatter(*points.T, s=3, alpha=0.5, color="C0" if axis is not axes[0] else "0.3")
    axis.set(title=title, aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
figure.tight_layout()
figure.savefig("own_head.png", dpi=80)

# %% [markdown]
# ## On text
#
# Copy the imports and the class into a file `my_head.py`. In its folder, the same check is a
# command, and another one compares the head with calmkit's on language, with equal budgets and
# standard errors:
#
# ```bash
# calmkit check my_head.NoiseHead
# calmkit compare --variants.ours.head my_head.NoiseHead
# ```
