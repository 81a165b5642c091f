"""Saving models to folders and loading them, without executing code from the file."""

from .errors import CannotBeSavedError as CannotBeSavedError
from .errors import SavedModelError as SavedModelError
from .errors import UntrustedCodeError as UntrustedCodeError
from .pretrained import PretrainedTokenizer as PretrainedTokenizer
from .saving import load as load
from .saving import save as save
from .saving import saved_tokenizer as saved_tokenizer

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .files import TOKENIZER_FILE as TOKENIZER_FILE
from .files import WEIGHTS_FILE as WEIGHTS_FILE
from .files import models_below as models_below
from .pretrained import TOKENIZER_FILES as TOKENIZER_FILES
from .repository import folder_of as folder_of
from .saved_autoencoder import SavedAutoencoder as SavedAutoencoder
