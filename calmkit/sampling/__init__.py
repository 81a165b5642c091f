"""Sampling at a temperature from a black box that can only be drawn from."""

from .temperature import BatchTemperature as BatchTemperature
from .temperature import PlainSampler as PlainSampler
from .temperature import Sampler as Sampler
from .temperature import batch_temperature as batch_temperature
