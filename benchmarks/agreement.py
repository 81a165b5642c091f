"""Untrained parts whose candidates agree as often as asked for.

How much a sampler can leave out depends on how often candidates of a row agree. Those of an
untrained head never do, or always. Here the noise enters the head beside a fixed random vector,
the bias of its embedding: the smaller the noise's factor, the more candidates are equal. The
factor is found by bisection on the *collision probability*, the chance that two candidates of a
row are the same chunk.

What to ask for: a calibrated model's mean collision probability is its Brier-4 score. BrierLM,
100 times the geometric mean of Brier-1 to Brier-4, is 5.7 to 8.5 for the published models; with
Brier-1 near 0.2 and the scores falling by equal factors, Brier-4 is 0.02 to 0.04.

How often *endings* agree decides, too: candidates are compared from their last token on. In a
trained model tokens depend on those before them, and two chunks that differ early rarely agree
later: of an energy head after 3000 steps on books (K = 2, vocabulary 512), the last tokens of two
candidates agree with probability 0.0257 and the whole chunks with 0.0139, half as often. Places
of an untrained decoder agree independently, and at 0.02 for all four the last ones would with 0.3.
So the former places depend on the latent by a small factor. A head that hardly agrees at all is
another matter: there the decoder is as it is.

What it is not: rows are alike here, while a trained model is sure of some and not of others.

The numbers of a trained model, after 64 places of its own held-out text:

    python benchmarks/agreement.py runs/heads/models/energy --data texts/
"""

import argparse
from pathlib import Path

import torch
from torch import Generator, Tensor

import calmkit
from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder
from calmkit.data import evaluation_rows, prepare_corpus
from calmkit.heads import EnergyHead
from calmkit.models.draws import ChunkDraws
from calmkit.sampling.counting import count_copies, leaders_of

__all__ = ["LEVELS", "agreeing_head", "agreement", "build_autoencoder"]

# Collision probabilities; the middle one is that of the goals.
LEVELS = {"low": 0.001, "middle": 0.02, "high": 0.2}
# By how much less than the last place the others of a chunk depend on its latent.
_FORMER = {"low": 1.0, "middle": 0.1, "high": 0.1}
_STEPS = 10


def build_autoencoder(
    args: argparse.Namespace, vocab_size: int, device: torch.device, level: str = "middle"
) -> ChunkAutoencoder:
    """The decoder of all comparisons at a level, not trained."""
    autoencoder = MLPAutoencoder(args.chunk, vocab_size, args.latent, width=args.width)
    with torch.no_grad():
        autoencoder.expand.weight[: -args.width].mul_(_FORMER[level])
        autoencoder.expand.bias.normal_()
    return autoencoder.to(device, torch.float32).freeze()


def agreement(candidates: Tensor) -> list[float]:
    """How many pairs of candidates (N, rows, K) of a row end in the same k tokens, k = 1 ... K.

    Returns:
        Shares of all pairs; the last one is the collision probability.
    """
    number, rows, size = candidates.shape
    counts = torch.stack(
        [count_copies(leaders_of(candidates[..., k:].contiguous())) for k in reversed(range(size))]
    ).double()
    pairs = (counts * (counts - 1)).sum(dim=(1, 2)) / (number * (number - 1) * rows)
    return pairs.tolist()


def agreeing_head(
    args: argparse.Namespace, autoencoder: ChunkAutoencoder, states: Tensor, wanted: float
) -> EnergyHead:
    """A head that has the wanted collision probability after some states, as near as it gets."""
    head = EnergyHead(args.hidden, args.latent, width=args.head_width, depth=args.head_depth)
    head = head.to(states.device, torch.float32)
    generator = Generator().manual_seed(0)
    weight = head.noise_embedding.weight.detach().clone()
    with torch.no_grad():
        head.noise_embedding.bias.copy_(torch.randn(len(weight), generator=generator))
    low, high = -8.0, 4.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        with torch.no_grad():
            head.noise_embedding.weight.copy_(weight * 2**middle)
        noise = Generator(states.device).manual_seed(1)
        *_, found = agreement(ChunkDraws(head, autoencoder, states, noise)(args.candidates))
        low, high = (middle, high) if found > wanted else (low, middle)
    return head


@torch.no_grad()
def agreement_of_trained(model: Path, data: Path) -> list[float]:
    """`agreement` of a saved model's candidates, after places of the text held out of its own."""
    calm = calmkit.load(model).eval()
    size = calm.chunk_size
    corpus = prepare_corpus(data, vocab_size=calm.vocab_size)
    rows = evaluation_rows(
        corpus.validation, chunk_size=size, positions=128 // size, max_rows=16, seed=0
    )
    states = calm.hidden_states(rows.batch)[:, 8:-1].flatten(0, 1)
    chosen = torch.randperm(len(states), generator=Generator().manual_seed(0))[:64]
    return agreement(calm.draws(states[chosen], Generator().manual_seed(0))(200))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How often candidates of a trained model agree.")
    parser.add_argument("model", type=Path, help="folder of a saved CALM")
    parser.add_argument("--data", type=Path, required=True, help="the text it was trained on")
    args = parser.parse_args()
    found = agreement_of_trained(args.model, args.data)
    for count, share in enumerate(found, start=1):
        print(f"the last {count} tokens of two candidates are equal with probability {share:.4f}")
