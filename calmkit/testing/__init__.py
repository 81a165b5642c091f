"""Property suites for parts: what every part of a kind promises, run on any factory."""

from .checking import check_part as check_part
from .parametrizing import parametrize_contracts as parametrize_contracts
from .report import Report as Report
from .report import Result as Result

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .trying import UnfitPart as UnfitPart
from .trying import try_model as try_model
from .trying import try_part as try_part
