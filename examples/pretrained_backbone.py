"""A pretrained Hugging Face model becomes the backbone of a CALM.

A tiny Llama is first trained here as an ordinary language model over tokens, in place of one that
you would download. Its Transformer then becomes the backbone of a CALM, which reads and writes
chunks of two tokens: the input encoder starts with the pretrained embeddings, and the head and the
autoencoder are new. The same CALM with random weights shows what the pretraining is worth.

With a model of your own, the two lines that matter are

    model = transformers.AutoModelForCausalLM.from_pretrained(name)
    backbone = HuggingFaceBackbone.from_model(model)

    python examples/pretrained_backbone.py      writes pretrained_backbone.png
"""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from calmkit.autoencoders import MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import HuggingFaceBackbone
from calmkit.data import Corpus, TrainingBatches, prepare_corpus
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding

VOCAB, HIDDEN, LATENT, K = 512, 64, 16, 2


def steps_of(module: nn.Module, steps: int) -> Iterator[int]:
    """Count the steps of a training; each is taken after the loop's body has run `backward`."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        yield step
        optimizer.step()
        schedule.step()


def pretrained_llama(corpus: Corpus, steps: int = 250) -> LlamaForCausalLM:
    """A Llama that predicts tokens."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=4 * HIDDEN,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    batches = TrainingBatches(corpus.train, chunk_size=1, positions=64, batch_size=16, seed=0)
    for step in steps_of(model, steps):
        tokens = batches.batch_at(step).tokens[..., 0]
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
    print(f"Llama over tokens: {loss:.2f} nats per token after {steps} steps")
    return model


def trained_autoencoder(corpus: Corpus, steps: int = 200) -> StandardizedAutoencoder:
    """Two tokens to one vector of 16 numbers, and back."""
    autoencoder = StandardizedAutoencoder(MLPAutoencoder(K, VOCAB, LATENT, width=96))
    batches = TrainingBatches(corpus.train, chunk_size=K, positions=64, batch_size=16, seed=1)
    for step in steps_of(autoencoder, steps):
        autoencoder.loss(batches.batch_at(step).tokens).total.mean().backward()
    tokens = batches.batch_at(steps).tokens
    restored = autoencoder.eval().decode_tokens(autoencoder.encode(tokens).mean)
    print(f"autoencoder: {(restored == tokens).float().mean():.1%} of tokens restored")
    return autoencoder


def calm_of(llama: LlamaForCausalLM, autoencoder: StandardizedAutoencoder) -> CALM:
    """A CALM on the Llama's Transformer, with its embeddings at the input."""
    torch.manual_seed(1)  # the new parts start the same
    encoder = ChunkEmbedding(VOCAB, K, HIDDEN)
    embeddings = llama.get_input_embeddings().weight.detach()
    # In the size that the encoder is made for: its own start has unit variance over the width.
    encoder.tokens.weight.data = embeddings * (encoder.tokens.weight.std() / embeddings.std())
    return CALM(
        autoencoder=autoencoder,
        input_encoder=encoder,
        backbone=HuggingFaceBackbone.from_model(llama),
        head=EnergyHead(HIDDEN, LATENT, width=64, depth=2, noise_size=16),
    )


def train(model: CALM, corpus: Corpus, steps: int = 100) -> list[float]:
    """Train all but the frozen autoencoder; return the loss of each step."""
    batches = TrainingBatches(corpus.train, chunk_size=K, positions=32, batch_size=16, seed=2)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in steps_of(model, steps):
        loss = model.loss(batches.batch_at(step), generator).total
        loss.backward()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def held_out(model: CALM, corpus: Corpus) -> float:
    """Energy score on text that no model has seen."""
    batches = TrainingBatches(corpus.validation, chunk_size=K, positions=32, batch_size=16, seed=3)
    generator = torch.Generator().manual_seed(0)
    model.eval()
    return sum(float(model.loss(batches.batch_at(i), generator).total) for i in range(8)) / 8


def main() -> None:
    """Pretrain, convert, train both models, and draw their losses."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    corpus = prepare_corpus(vocab_size=VOCAB)  # the English prose that ships with Python
    llama = pretrained_llama(corpus)
    autoencoder = trained_autoencoder(corpus)
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for name, start in {"pretrained": llama, "random": LlamaForCausalLM(llama.config)}.items():
        model = calm_of(start, autoencoder)
        losses = train(model, corpus)
        score = held_out(model, corpus)
        print(f"{name} backbone: energy score {score:.3f} on held-out text")
        smooth = torch.tensor(losses).unfold(0, 10, 1).mean(dim=1)
        axis.plot(range(10, 11 + len(losses) - 10), smooth, label=f"{name} ({score:.3f} held out)")
    axis.set(xlabel="step", ylabel="energy score of the next chunk", title="The CALM's training")
    axis.legend()
    figure.tight_layout()
    figure.savefig("pretrained_backbone.png", dpi=80)


if __name__ == "__main__":
    main()
