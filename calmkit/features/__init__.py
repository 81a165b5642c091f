"""Sparse features of a model's vectors, which can be read as text."""

from .chunk_vectors import ChunkVectors as ChunkVectors
from .chunk_vectors import chunk_vectors as chunk_vectors
from .clearest import BestToken as BestToken
from .clearest import clearest_features as clearest_features
from .learning_features import FeatureSettings as FeatureSettings
from .learning_features import learn_features as learn_features
from .steered_text import SteeredText as SteeredText
from .steered_text import write_steered as write_steered
from .steering import SteeredHead as SteeredHead
from .steering import steered as steered
from .study import FeatureStudy as FeatureStudy
from .study import FeatureText as FeatureText
from .study import Fit as Fit
from .studying import study_features as study_features

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .chunk_vectors import Kind as Kind
