"""Python's collector of garbage, off until all tests are imported; imported before anything large.

Objects of imported modules live as long as the process. There are half a million, and each full
collection would look at all of them: once tests run, it skips them and comes rarely, since what a
test leaves in cycles is little.
"""

import gc
import os

gc.disable()
# PyTorch would collect after each compilation.
os.environ["TORCH_DYNAMO_RUN_GC_AFTER_COMPILE"] = "0"


def start():
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
