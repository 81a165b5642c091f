"""Whole models, assembled from parts."""

from .base import LanguageModel as LanguageModel
from .base import ModelLoss as ModelLoss
from .calm import CALM as CALM
from .embedding import ChunkEmbedding as ChunkEmbedding
from .generation import Generation as Generation
from .input_encoder import InputEncoder as InputEncoder
from .latent_embedding import LatentEmbedding as LatentEmbedding
from .latent_embedding import TokenAndLatentEmbedding as TokenAndLatentEmbedding
from .noisy_input import NoisyInput as NoisyInput
from .ranking import RankedContinuation as RankedContinuation
from .ranking import rank as rank
from .token_lm import TokenLM as TokenLM

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .draws import draw_latents as draw_latents
from .encoder_choice import encoder_of as encoder_of
from .generation import TokenStream as TokenStream
from .prompts import Tokenizer as Tokenizer
from .sample_terms import pooled_score as pooled_score
