import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.metrics import reconstructed_tokens


def test_is_decoding_the_mean():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = MLPAutoencoder(3, 5, 8, width=16).eval()
    tokens = torch.randint(5, (40, 3), generator=torch.Generator().manual_seed(0))
    want = autoencoder.decode(autoencoder.encode(tokens).mean).argmax(-1) == tokens
    got = reconstructed_tokens(autoencoder, tokens)
    assert torch.equal(got, want)
    assert got.any() and not got.all()
    for dtype in (torch.int32, torch.int16, torch.int8):
        assert torch.equal(reconstructed_tokens(autoencoder, tokens.to(dtype)), want)
