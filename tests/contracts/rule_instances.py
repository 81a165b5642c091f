"""Small instances of every scoring rule; the completeness test keeps this list whole."""

from calmkit.scoring import EnergyScore

RULES = {EnergyScore: (EnergyScore(), EnergyScore(0.5), EnergyScore(1.7))}
