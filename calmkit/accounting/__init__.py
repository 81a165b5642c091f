"""The cost of a model, computed before it is built: parameters, FLOPs, memory."""

from .chunk_model import account as account
from .device_peak import matrix_peak as matrix_peak
from .forecast import Forecast as Forecast
from .forecast import TrainingPlan as TrainingPlan
from .forecast import forecast as forecast
from .published import PUBLISHED as PUBLISHED
from .published import TRAINING_TOKENS as TRAINING_TOKENS
from .published import PublishedModel as PublishedModel
from .published import Residuals as Residuals
from .published import residuals_to as residuals_to
from .results import Account as Account
from .token_lm import account_token_lm as account_token_lm

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .device_peak import peak_of_gpu as peak_of_gpu
from .forecast import ASSUMED_SHARE as ASSUMED_SHARE
from .language_model import account_of as account_of
from .language_model import costs_per_token as costs_per_token
