"""Evaluate any model on rows of held-out text."""

from .chosen_chunks import Choices as Choices
from .chosen_chunks import choose as choose
from .continuations import Continuations as Continuations
from .continuations import TextScores as TextScores
from .continuations import continue_rows as continue_rows
from .ngram_evaluation import evaluate_ngrams as evaluate_ngrams
from .ngram_model import NgramModel as NgramModel
from .sample_texts import SampleText as SampleText
from .sampled_evaluation import evaluate as evaluate
from .sampled_evaluation import evaluate_unigram as evaluate_unigram
from .scored_text import EvaluationSettings as EvaluationSettings
from .scored_text import check_context as check_context
from .scores import restored_share as restored_share
from .scores import score as score
from .softmax_chunks import evaluate_softmax_chunks as evaluate_softmax_chunks
from .softmax_evaluation import evaluate_softmax as evaluate_softmax
from .tally import Evaluation as Evaluation
from .writing_speed import Timing as Timing
from .writing_speed import microseconds_per_token as microseconds_per_token

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .sample_texts import HELD_OUT as HELD_OUT
from .sample_texts import nearest_variety as nearest_variety
from .sample_texts import prompts_of as prompts_of
from .sample_texts import write_samples as write_samples
from .scored_text import positions_read as positions_read
from .scores import posteriors_of as posteriors_of
from .tally import ENOUGH_DOCUMENTS as ENOUGH_DOCUMENTS
from .writing_speed import PROMPT_TOKENS as PROMPT_TOKENS
from .writing_speed import positions_written as positions_written
