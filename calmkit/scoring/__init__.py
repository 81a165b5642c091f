"""Strictly proper scoring rules: as plain functions and as swappable parts. Lower is better."""

from .base import ScoringRule as ScoringRule
from .combined import ChunkedScore as ChunkedScore
from .combined import SampledTarget as SampledTarget
from .combined import SpreadWeighted as SpreadWeighted
from .combined import WeightedSum as WeightedSum
from .crps import MarginalCRPS as MarginalCRPS
from .crps import crps as crps
from .crps import expected_crps as expected_crps
from .crps import folded_normal_mean as folded_normal_mean
from .dawid_sebastiani import DawidSebastianiScore as DawidSebastianiScore
from .dawid_sebastiani import dawid_sebastiani_score as dawid_sebastiani_score
from .discrete import brier_score as brier_score
from .discrete import brier_score_of as brier_score_of
from .discrete import collision_rate as collision_rate
from .discrete import hit_rate as hit_rate
from .discrete import spherical_score as spherical_score
from .energy import EnergyScore as EnergyScore
from .energy import energy_score as energy_score
from .kernel import KernelScore as KernelScore
from .kernel import expected_dissimilarity as expected_dissimilarity
from .kernel import kernel_score as kernel_score
from .kernels import GaussianKernel as GaussianKernel
from .kernels import InverseMultiquadricKernel as InverseMultiquadricKernel
from .kernels import Kernel as Kernel
from .kernels import LaplaceKernel as LaplaceKernel
from .kernels import median_heuristic as median_heuristic
from .logarithmic import log_score as log_score
from .moments import expected_distance as expected_distance
from .moments import gaussian_norm_moment as gaussian_norm_moment
from .pairwise import PairwiseScore as PairwiseScore
from .sliced import SlicedCRPS as SlicedCRPS
from .sliced import sliced_crps as sliced_crps
from .variogram import VariogramScore as VariogramScore
from .variogram import variogram_score as variogram_score

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .kernel import expected_pull as expected_pull
