"""calmkit: typed, tested building blocks for continuous autoregressive language models (CALM).

Import parts from the package of their noun, for instance `from calmkit.heads import EnergyHead`.
"""

__version__ = "0.1.0"
