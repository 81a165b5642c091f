"""From text to batches of chunks."""

from .batches import EvaluationRows as EvaluationRows
from .batches import TrainingBatches as TrainingBatches
from .batches import evaluation_rows as evaluation_rows
from .corpus import Corpus as Corpus
from .corpus import digest_of as digest_of
from .corpus import prepare_corpus as prepare_corpus
from .corpus import split_documents as split_documents
from .sources import read_documents as read_documents
from .sources import split_into_sections as split_into_sections
from .store import TokenStore as TokenStore
from .tokenizer import TextTokenizer as TextTokenizer
