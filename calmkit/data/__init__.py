"""From text to batches of chunks."""

from .batches import EvaluationRows as EvaluationRows
from .batches import TrainingBatches as TrainingBatches
from .batches import evaluation_rows as evaluation_rows
from .corpus import Corpus as Corpus
from .corpus import digest_of as digest_of
from .corpus import prepare_corpus as prepare_corpus
from .corpus import split_documents as split_documents
from .pair_batches import PairBatches as PairBatches
from .pairs import TextPair as TextPair
from .pairs import TokenPair as TokenPair
from .pairs import encode_pairs as encode_pairs
from .pairs import read_pairs as read_pairs
from .pairs import split_pairs as split_pairs
from .sources import read_documents as read_documents
from .sources import split_into_sections as split_into_sections
from .store import TokenStore as TokenStore
from .tokenizer import TextTokenizer as TextTokenizer

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .json_lines import check_unicode as check_unicode
from .json_lines import read_json_lines as read_json_lines
from .json_lines import read_text as read_text
from .sources import EMBEDDED_NAME as EMBEDDED_NAME
from .tokenizer import END_TOKEN as END_TOKEN
