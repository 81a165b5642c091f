"""The contracts of input encoders."""
