"""Streams of documents, from files of many formats to files of token ids."""

from .content import content_key as content_key
from .documents import DocumentStream as DocumentStream
from .embedded import EMBEDDED_NAME as EMBEDDED_NAME
from .embedded import sources_of as sources_of
from .encoder import EncodedBatch as EncodedBatch
from .encoder import EncodedSide as EncodedSide
from .encoder import Encoder as Encoder
from .filling import Filling as Filling
from .journal import WORK_FOLDER as WORK_FOLDER
from .journal import Journal as Journal
from .journal import State as State
from .journal import check_same_plan as check_same_plan
from .json_lines import check_unicode as check_unicode
from .json_lines import read_json_lines as read_json_lines
from .json_lines import read_text as read_text
from .pieces import encode_exactly as encode_exactly
from .raw import BadInputError as BadInputError
from .raw import RawDocument as RawDocument
from .raw import text_of as text_of
from .sections import split_into_sections as split_into_sections
from .sides import ByHash as ByHash
from .sides import OneSide as OneSide
from .sides import hash_of as hash_of
from .source_files import FORMATS as FORMATS
from .source_files import Source as Source
from .source_files import find_sources as find_sources
from .survey import Sample as Sample
from .survey import rule_for_both_sides as rule_for_both_sides
from .workers import EncodingError as EncodingError
from .workers import encoding_in_order as encoding_in_order

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .tokenizer import TextTokenizer as TextTokenizer
from .tokenizer import check_vocab_size as check_vocab_size
from .tokenizer import read_tokenizer as read_tokenizer
