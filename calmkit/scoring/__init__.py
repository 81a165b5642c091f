"""Strictly proper scoring rules: as plain functions and as swappable parts. Lower is better."""

from .base import ScoringRule as ScoringRule
from .energy import EnergyScore as EnergyScore
from .energy import energy_score as energy_score
from .moments import expected_distance as expected_distance
from .moments import gaussian_norm_moment as gaussian_norm_moment
