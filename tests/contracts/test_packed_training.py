"""Documents packed in one row train a model exactly as rows of their own do, on the chunk grid."""

import pytest
import torch
from backbone_instances import BACKBONES

from calmkit.autoencoders import MLPAutoencoder
from calmkit.chunking import ChunkBatch, chunk_tokens
from calmkit.heads import GaussianHead
from calmkit.models import CALM, ChunkEmbedding

CHUNK, VOCAB, HIDDEN, LATENT, FILL = 3, 11, 8, 6, 0
# Tokens of each document, and padding places before its first one. Chunks: 3, 1, 2, 4.
DOCUMENTS = ((8, 1), (2, 0), (4, 2), (12, 0))


@pytest.fixture(params=BACKBONES)
def model(request):
    """With a head that draws nothing, so that a document's loss is the same in every row."""
    torch.manual_seed(0)
    model = CALM(
        autoencoder=MLPAutoencoder(CHUNK, VOCAB, LATENT, width=8),
        input_encoder=ChunkEmbedding(VOCAB, CHUNK, HIDDEN),
        backbone=BACKBONES[request.param](),
        head=GaussianHead(HIDDEN, LATENT, width=8, depth=1),
    )
    torch.nn.init.normal_(model.head.network.output.weight)  # zeros at first: no condition is seen
    return model


def documents():
    """(chunks, real) of each document."""
    generator = torch.Generator().manual_seed(0)
    for length, phase in DOCUMENTS:
        tokens = torch.randint(1, VOCAB, (length,), generator=generator)
        yield chunk_tokens(tokens, CHUNK, phase=phase, fill_id=FILL)


def batch_of(row):
    """One row of whole documents."""
    chunks, real = (torch.cat(parts)[None] for parts in zip(*row, strict=True))
    return ChunkBatch(chunks, real, (tuple(len(part) for part, _ in row),))


def summed(model, row):
    """Losses of what a row asks for, and the gradients of their sum."""
    loss = model.loss(batch_of(row))
    losses = loss.per_position[loss.counted]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(losses.sum(), list(trained.values()))
    return losses, dict(zip(trained, gradients, strict=True))


def test_losses_and_gradients_are_those_of_separate_rows(model):
    row = list(documents())
    losses, gradients = summed(model, row)
    # A document of one chunk asks for nothing.
    alone = [summed(model, [document]) for document in row if len(document[0]) > 1]
    torch.testing.assert_close(losses, torch.cat([part for part, _ in alone]))
    assert len(losses) == sum(len(chunks) - 1 for chunks, _ in row)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(part[name] for _, part in alone), msg=name)
        assert gradient.abs().sum() > 0, name


def test_without_the_packing_they_are_not(model):
    """The same row as one document: attention and positions cross what were borders."""
    chunks, real = (torch.cat(parts)[None] for parts in zip(*documents(), strict=True))
    crossing = model.loss(ChunkBatch(chunks, real, ((chunks.shape[1],),)))
    packed = model.loss(batch_of(list(documents())))
    later = packed.counted.clone()
    later[:, :2] = False  # the first document is the same either way
    assert not torch.isclose(
        crossing.per_position[later], packed.per_position[later], rtol=1e-4
    ).any()
    torch.testing.assert_close(crossing.per_position[:, :2], packed.per_position[:, :2])
