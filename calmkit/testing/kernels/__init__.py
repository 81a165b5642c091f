"""The contracts of kernels."""
