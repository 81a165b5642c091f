"""The contracts of attention backends."""
