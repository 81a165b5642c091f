"""Random and interleaved orders with random access to any element."""

from .best_fit import Group as Group
from .best_fit import Part as Part
from .best_fit import best_fit as best_fit
from .counter_random import key_of as key_of
from .counter_random import words as words
from .permutation import permuted as permuted
from .steps import rows_of_step as rows_of_step
from .turns import Turns as Turns
from .turns import shares_of as shares_of
