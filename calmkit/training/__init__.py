"""Training: one loop for all parts, with checkpoints that resume to the same numbers."""

from .block_compilation import compiled_blocks as compiled_blocks
from .block_compilation import uncompiled as uncompiled
from .checkpoint_record import CheckpointError as CheckpointError
from .divergence import TrainingDiverged as TrainingDiverged
from .float32_products import fast_products as fast_products
from .loop import TrainingResult as TrainingResult
from .loop import fit as fit
from .objective import Means as Means
from .objective import Objective as Objective
from .optimizer import MatrixDecayAdamW as MatrixDecayAdamW
from .progress import Progress as Progress
from .randomness import step_generator as step_generator
from .schedule import learning_rate_factor as learning_rate_factor
from .settings import TrainingSettings as TrainingSettings

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .block_compilation import check_compiler as check_compiler
from .optimizer import build_optimizer as build_optimizer
