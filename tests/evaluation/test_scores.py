"""The share of tokens that an autoencoder restores, on many rows."""

import torch
from evaluation_problems import VOCAB, rows_of

from calmkit.autoencoders import ContextualAutoencoder
from calmkit.evaluation import posteriors_of, restored_share


def contextual():
    """It reads the chunks before in the row, so that rows cannot be cut."""
    torch.manual_seed(0)
    return ContextualAutoencoder(2, VOCAB, 6, width=8, latent_dropout=0.5)


def test_the_share_of_real_tokens_by_hand():
    autoencoder = contextual()  # in training mode, which is not that of the measurement
    batch = rows_of(2, [9] * 20, [*range(20)]).batch
    restored = []
    autoencoder.eval()
    for row in range(20):
        latents = autoencoder.encode_rows(batch.rows(slice(row, row + 1))).mean
        same = autoencoder.decode_tokens(latents)[0] == batch.tokens[row]
        restored += same[batch.real[row]].tolist()
    autoencoder.train()
    assert len(restored) == 20 * 9 and 0 < sum(restored) < len(restored)
    assert restored_share(autoencoder, batch) == sum(restored) / len(restored)
    assert autoencoder.training


def test_a_few_rows_are_encoded_at_a_time(monkeypatch):
    """The validation of `calm-m` has 128 rows of 8,192 tokens, a micro-batch 4 of them."""
    autoencoder, seen = contextual().eval(), []
    whole = autoencoder.encode_rows(batch := rows_of(2, [9] * 20, [*range(20)]).batch)
    encode = ContextualAutoencoder.encode_rows

    def watched(self, batch):
        seen.append(len(batch.lengths))
        return encode(self, batch)

    monkeypatch.setattr(ContextualAutoencoder, "encode_rows", watched)
    found = posteriors_of(autoencoder, batch)
    assert seen == [8, 8, 4] and not found.mean.requires_grad
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.std, whole.std)
