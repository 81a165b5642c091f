"""Fair comparisons of models: same text, seeds and budget; differences with errors."""

from .results import ComparisonResult as ComparisonResult
from .results import VariantResult as VariantResult
from .results import read_results as read_results
from .summary import Summary as Summary
from .summary import summarize as summarize

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .comparing import compare as compare
from .comparing import result_of_one as result_of_one
from .planning import Preparation as Preparation
from .planning import plan_runs as plan_runs
from .planning import prepare_all as prepare_all
from .results import TrialResult as TrialResult
from .tuning import tune as tune
