"""Imported by the process that others are forked from: what each training does first, done once.

Each fork would otherwise import what PyTorch imports late, and read all code of the library.
"""

import late_collection

from calmkit.config import check_parts, parse
from calmkit.experiments.keys import code_of_result, code_of_training

_PARSED = parse(["--output=nowhere"], command="calmkit train")
check_parts(_PARSED.experiment)
code_of_training(_PARSED.text)
code_of_result(_PARSED.text)
late_collection.start()
