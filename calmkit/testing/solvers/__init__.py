"""The contracts of solvers of differential equations."""
