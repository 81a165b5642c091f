"""From text to batches of chunks."""

from .batches import TrainingBatches as TrainingBatches
from .corpus import Corpus as Corpus
from .corpus import digest_of as digest_of
from .corpus import prepare_corpus as prepare_corpus
from .held_out_rows import EvaluationRows as EvaluationRows
from .held_out_rows import evaluation_rows as evaluation_rows
from .known_tokenizers import find_tokenizer as find_tokenizer
from .manifest import Manifest as Manifest
from .manifest import is_prepared as is_prepared
from .mixed_corpus import mixed_corpus as mixed_corpus
from .output_folder import prepare_folder as prepare_folder
from .preparation import Preparation as Preparation
from .reading_documents import read_documents as read_documents
from .store import TokenStore as TokenStore
from .text_mixture import TextMixture as TextMixture

# isort: off
# In the order of the reference.
from .known_tokenizers import TextTokenizer as TextTokenizer
# isort: on

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .inspecting import FolderContent as FolderContent
from .inspecting import SideContent as SideContent
from .inspecting import inspect_folder as inspect_folder
from .manifest import TOKENIZER_FILE as TOKENIZER_FILE
from .output_folder import source_of_stream as source_of_stream
from .preparation import SHARD_TOKENS as SHARD_TOKENS
