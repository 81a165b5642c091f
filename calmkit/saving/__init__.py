"""Models in and out of folders, without code that runs by itself."""

from .errors import CannotBeSavedError as CannotBeSavedError
from .errors import SavedModelError as SavedModelError
from .errors import UntrustedCodeError as UntrustedCodeError
from .pretrained import PretrainedTokenizer as PretrainedTokenizer
from .saving import load as load
from .saving import save as save
from .saving import saved_tokenizer as saved_tokenizer
