"""The contracts of noise distributions."""
