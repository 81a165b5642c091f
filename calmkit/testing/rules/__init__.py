"""The contracts of scoring rules."""
