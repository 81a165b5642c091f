"""Scores of any model on rows of held-out text."""

from .chosen_chunks import Choices as Choices
from .chosen_chunks import choose as choose
from .ngram_evaluation import evaluate_ngrams as evaluate_ngrams
from .ngram_model import NgramModel as NgramModel
from .sampled_evaluation import Evaluation as Evaluation
from .sampled_evaluation import EvaluationSettings as EvaluationSettings
from .sampled_evaluation import evaluate as evaluate
from .sampled_evaluation import evaluate_unigram as evaluate_unigram
from .scored_text import ENOUGH_DOCUMENTS as ENOUGH_DOCUMENTS
from .scored_text import check_context as check_context
from .scored_text import positions_read as positions_read
from .scores import restored_share as restored_share
from .scores import score as score
from .softmax_evaluation import SoftmaxEvaluation as SoftmaxEvaluation
from .softmax_evaluation import evaluate_softmax as evaluate_softmax
from .writing_speed import PROMPT_TOKENS as PROMPT_TOKENS
from .writing_speed import microseconds_per_token as microseconds_per_token
from .writing_speed import positions_written as positions_written
