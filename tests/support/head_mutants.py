"""All heads that the suite must reject, and those that it must accept."""

import head_gradient_mutants
import head_law_mutants
import head_precision_mutants
import head_randomness_mutants
import head_refusal_mutants
import head_shape_mutants
import strange_heads

MUTANTS = (
    head_shape_mutants.MUTANTS
    | head_gradient_mutants.MUTANTS
    | head_randomness_mutants.MUTANTS
    | head_precision_mutants.MUTANTS
    | head_refusal_mutants.MUTANTS
    | head_law_mutants.MUTANTS
)
# They cannot learn, which takes a training to see.
SLOW_MUTANTS = head_law_mutants.SLOW_MUTANTS
ACCEPTED = strange_heads.ACCEPTED
