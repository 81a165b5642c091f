"""What a model costs before it exists: parameters, operations, memory."""

from .chunk_model import account as account
from .published import PUBLISHED as PUBLISHED
from .published import TRAINING_TOKENS as TRAINING_TOKENS
from .published import PublishedModel as PublishedModel
from .published import Residuals as Residuals
from .published import residuals_to as residuals_to
from .results import Account as Account
from .token_lm import account_token_lm as account_token_lm

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .language_model import account_of as account_of
from .language_model import costs_per_token as costs_per_token
