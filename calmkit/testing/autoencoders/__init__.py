"""The contracts of chunk autoencoders."""
