"""Numerical tools: integrals of Laplace transforms, derivatives at kinks, sums in float32."""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .bernstein import Quadrature as Quadrature
from .bernstein import derivative_by_squares as derivative_by_squares
from .bernstein import expected_by as expected_by
from .bernstein import log_grid as log_grid
from .derivatives import needs_plain_operations as needs_plain_operations
from .derivatives import recomputed as recomputed
from .derivatives import smooth_norm as smooth_norm
from .log_sum import log_sum_exp as log_sum_exp
from .precision import in_full_precision as in_full_precision
