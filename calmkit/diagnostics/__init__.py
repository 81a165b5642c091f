"""Diagnostics: measurements of each part of a model, with the meaning of a bad value."""

from .aggregate import PriorGap as PriorGap
from .aggregate import latent_variance as latent_variance
from .aggregate import prior_gap as prior_gap
from .base import Diagnostic as Diagnostic
from .collisions import CollisionCalibration as CollisionCalibration
from .collisions import collision_calibration as collision_calibration
from .conditioning import ConditioningGap as ConditioningGap
from .conditioning import conditioning_gap as conditioning_gap
from .diagnosing import diagnose as diagnose
from .diagnosis import Diagnosis as Diagnosis
from .gate import DecoderGate as DecoderGate
from .gate import decoder_gate as decoder_gate
from .gate import head_noise as head_noise
from .groups import mean_over_groups as mean_over_groups
from .interpolation import Interpolation as Interpolation
from .interpolation import interpolate as interpolate
from .latent_error import LatentError as LatentError
from .latent_error import latent_error as latent_error
from .latents import LatentUse as LatentUse
from .latents import latent_use as latent_use
from .maps import PrincipalMap as PrincipalMap
from .maps import principal_map as principal_map
from .maps import tsne_map as tsne_map
from .neighbours import NearestChunks as NearestChunks
from .neighbours import nearest_chunks as nearest_chunks
from .next_chunk import NextChunkAccuracy as NextChunkAccuracy
from .next_chunk import next_chunk_accuracy as next_chunk_accuracy
from .noise import NoiseCurve as NoiseCurve
from .noise import noise_curve as noise_curve
from .skill import EnergySkill as EnergySkill
from .skill import energy_skill as energy_skill
from .skill import marginal_samples as marginal_samples
from .spread import SampleSpread as SampleSpread
from .spread import sample_spread as sample_spread
from .state_rank import StateRank as StateRank
from .state_rank import state_rank as state_rank
from .votes import SampleVotes as SampleVotes
from .votes import sample_votes as sample_votes

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .diagnosing import check_points as check_points
from .diagnosing import enough_rows as enough_rows
from .diagnosis import LatentPlaces as LatentPlaces
from .text_quality import TextQuality as TextQuality
