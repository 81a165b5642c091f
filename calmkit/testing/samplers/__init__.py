"""The contracts of samplers."""
