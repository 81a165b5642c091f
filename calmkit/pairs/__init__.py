"""Prompts with their responses, from a file to batches."""

from .pair_batches import PairBatches as PairBatches
from .pair_store import PairStore as PairStore
from .pair_store import TokenPair as TokenPair
from .text_pairs import TextPair as TextPair
from .text_pairs import encode_pairs as encode_pairs
from .text_pairs import read_pairs as read_pairs
