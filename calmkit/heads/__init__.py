"""Generative heads: from the backbone's state to samples of the next latent vector."""

from .base import Head as Head
from .base import check_num_samples as check_num_samples
from .blockwise import BlockwiseHead as BlockwiseHead
from .contrastive import ContrastiveHead as ContrastiveHead
from .diffusion import DiffusionHead as DiffusionHead
from .drift import Drift as Drift
from .drift import MeanShiftDrift as MeanShiftDrift
from .drift import UnbiasedDrift as UnbiasedDrift
from .drifting import DriftingHead as DriftingHead
from .energy import EnergyHead as EnergyHead
from .flow import FlowHead as FlowHead
from .flow_map import FlowMapHead as FlowMapHead
from .gaussian import GaussianHead as GaussianHead
from .guidance import GuidedHead as GuidedHead
from .mean_flow import MeanFlowHead as MeanFlowHead
from .mixture import MixtureHead as MixtureHead
from .noise import GaussianNoise as GaussianNoise
from .noise import Noise as Noise
from .noise import UniformNoise as UniformNoise
from .ode import AdaptiveSolver as AdaptiveSolver
from .ode import EulerSolver as EulerSolver
from .ode import HeunSolver as HeunSolver
from .ode import MidpointSolver as MidpointSolver
from .ode import RungeKutta4Solver as RungeKutta4Solver
from .ode import Solver as Solver
from .prediction import CleanPrediction as CleanPrediction
from .prediction import NoisePrediction as NoisePrediction
from .prediction import Prediction as Prediction
from .prediction import VelocityPrediction as VelocityPrediction
from .reverse import DDIMSampler as DDIMSampler
from .reverse import DDPMSampler as DDPMSampler
from .reverse import DPMSolverSampler as DPMSolverSampler
from .reverse import ReverseSampler as ReverseSampler
from .schedule import CosineSchedule as CosineSchedule
from .schedule import LinearSchedule as LinearSchedule
from .schedule import NoiseSchedule as NoiseSchedule
from .schedule import ZeroTerminalSNR as ZeroTerminalSNR
from .spline_flow import SplineFlowHead as SplineFlowHead
from .tied_mixture import TiedMixtureHead as TiedMixtureHead
from .times import LogitNormalTimes as LogitNormalTimes
from .times import TimeDistribution as TimeDistribution
from .times import UniformTimes as UniformTimes
from .variance import FixedVariance as FixedVariance
from .variance import LearnedVariance as LearnedVariance
from .variance import ReverseVariance as ReverseVariance
from .weighting import LossWeighting as LossWeighting
from .weighting import MinSNRWeighting as MinSNRWeighting
from .weighting import UniformWeighting as UniformWeighting

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .wrapping_head import WrappingHead as WrappingHead
