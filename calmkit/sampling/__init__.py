"""Sampling at a temperature from a black box, which returns draws but no probabilities."""

from .base import Draw as Draw
from .base import PlainSampler as PlainSampler
from .base import SampledChunks as SampledChunks
from .base import Sampler as Sampler
from .batch import BatchTemperature as BatchTemperature
from .batch import batch_temperature as batch_temperature
from .exact import DrawBudgetError as DrawBudgetError
from .exact import ExactTemperature as ExactTemperature
from .exact import exact_temperature as exact_temperature
from .frequent import MostFrequent as MostFrequent
from .frequent import most_frequent as most_frequent
from .softmax import SoftmaxSampler as SoftmaxSampler

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .softmax import drawable as drawable
