"""Images, patch by patch: five heads behind one small Transformer.

A head knows nothing of text. Here it draws the next patch of a picture, as in MAR (arXiv
2406.11838), but in raster order: the Transformer reads the digit's class and the patches so far,
and the head draws the next patch of 4 x 4 pixels, a vector of 16 numbers. Only the head differs
between the five models.

    python examples/image_latents.py      writes image_latents.png
"""

import time

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from calmkit.backbones import TransformerBackbone
from calmkit.heads import DiffusionHead, EnergyHead, FlowHead, GaussianHead, Head, MixtureHead
from calmkit.scoring import EnergyScore

STEPS, BATCH, HIDDEN = 220, 64, 64
PLACES, PATCH = 4, 16  # a picture of 8 x 8 pixels is four patches of 4 x 4


def to_patches(images: Tensor) -> Tensor:
    """(pictures, 8, 8) to (pictures, 4, 16)."""
    return images.unfold(1, 4, 4).unfold(2, 4, 4).reshape(len(images), PLACES, PATCH)


def to_images(patches: Tensor) -> Tensor:
    """The way back."""
    return patches.reshape(-1, 2, 2, 4, 4).transpose(2, 3).reshape(-1, 8, 8)


class PatchModel(nn.Module):
    """Reads the class and the patches so far; the head draws the next one."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.label = nn.Embedding(10, HIDDEN)
        self.place = nn.Embedding(PLACES, HIDDEN)
        self.read = nn.Linear(PATCH, HIDDEN)
        self.backbone = TransformerBackbone(HIDDEN, depth=2, heads=4)
        self.head = head

    def states(self, labels: Tensor, patches: Tensor) -> Tensor:
        """The state before each patch, and one more: (pictures, 1 + patches, hidden)."""
        vectors = torch.cat([self.label(labels)[:, None], self.read(patches)], dim=1)
        places = torch.arange(vectors.shape[1]).clamp_max(PLACES - 1)
        return self.backbone(vectors + self.place(places))

    def loss(self, labels: Tensor, patches: Tensor) -> Tensor:
        return self.head.loss(self.states(labels, patches[:, :-1]), patches).mean()

    @torch.no_grad()
    def draw(self, labels: Tensor) -> Tensor:
        """A new picture of each label, patch by patch."""
        patches = torch.zeros(len(labels), 0, PATCH)
        for _ in range(PLACES):
            state = self.states(labels, patches)[:, -1]
            patches = torch.cat([patches, self.head.sample(state, 1)[0][:, None]], dim=1)
        return patches


def main() -> None:
    """Train five models for the same number of steps, score and draw them."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    # Whole numbers from 0 to 16. Noise makes them continuous: a density on whole numbers has no
    # bound, and a likelihood would grow without learning the shapes.
    pixels = (torch.tensor(digits.images) + torch.rand(1797, 8, 8)) / 17
    mean, std = pixels.mean(), pixels.std()
    patches = to_patches((pixels - mean) / std).float()
    labels = torch.tensor(digits.target)
    train, test = torch.arange(1797) < 1500, torch.arange(1797) >= 1500

    sizes = {"width": 64, "depth": 2}
    heads = {
        "energy": EnergyHead(HIDDEN, PATCH, noise_size=16, **sizes),
        "flow": FlowHead(HIDDEN, PATCH, **sizes),
        "diffusion": DiffusionHead(HIDDEN, PATCH, **sizes),
        "Gaussian": GaussianHead(HIDDEN, PATCH, **sizes),
        "mixture": MixtureHead(HIDDEN, PATCH, **sizes),
    }
    first = [int((labels[test] == digit).nonzero()[0]) for digit in range(10)]
    rows = {"data": patches[test][first]}
    for name, head in heads.items():
        begin, model = time.perf_counter(), PatchModel(head)
        generator = torch.Generator().manual_seed(0)  # the same pictures in the same order
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for _ in range(STEPS):
            chosen = torch.randint(1500, (BATCH,), generator=generator)
            loss = model.loss(labels[train][chosen], patches[train][chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - begin
        # One proper score for all heads: of each patch of unseen pictures, given those before it.
        with torch.no_grad():
            states = model.states(labels[test], patches[test][:, :-1])
            score = EnergyScore().score(head.sample(states, 16), patches[test]).mean(dim=1)
        error = score.std() / len(score) ** 0.5
        print(f"{name:10} energy score {score.mean():.4f} ± {error:.4f}   {seconds:.1f} s")
        rows[f"{name}\n{score.mean():.3f}"] = model.draw(torch.arange(10))
    figure, axes = plt.subplots(6, 10, figsize=(7.5, 4.8))
    for line, (title, drawn) in zip(axes, rows.items(), strict=True):
        images = to_images(drawn) * std + mean
        for axis, image in zip(line, images.numpy(), strict=True):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.4)
    figure.savefig("image_latents.png", dpi=80)


if __name__ == "__main__":
    main()
