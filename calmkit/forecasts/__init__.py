"""The cost of the model and the training that a config describes, before either exists."""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .forecasting import forecast_finetuning as forecast_finetuning
from .forecasting import forecast_training as forecast_training
from .memory_advice import evaluation_advice as evaluation_advice
from .memory_advice import memory_advice as memory_advice
from .memory_advice import validation_advice as validation_advice
from .model_accounts import account_parts as account_parts
from .model_accounts import account_preset as account_preset
