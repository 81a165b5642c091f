"""Generative heads: from the backbone's state to samples of the next latent vector."""

from .base import Head as Head
from .diffusion import DiffusionHead as DiffusionHead
from .energy import EnergyHead as EnergyHead
from .flow import FlowHead as FlowHead
from .ode import integrate_midpoint as integrate_midpoint
from .prediction import CleanPrediction as CleanPrediction
from .prediction import NoisePrediction as NoisePrediction
from .prediction import Prediction as Prediction
from .prediction import VelocityPrediction as VelocityPrediction
from .schedule import NoiseSchedule as NoiseSchedule
