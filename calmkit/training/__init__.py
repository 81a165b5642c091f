"""Training: one loop for all parts, with checkpoints that resume to the same numbers."""

from .averaged_weights import AveragedWeights as AveragedWeights
from .checkpoint_record import CheckpointError as CheckpointError
from .divergence import TrainingDiverged as TrainingDiverged
from .loggers import CSVCurves as CSVCurves
from .loggers import CurveLogger as CurveLogger
from .loggers import TensorBoardCurves as TensorBoardCurves
from .loggers import WandbCurves as WandbCurves
from .loop import TrainingResult as TrainingResult
from .loop import fit as fit
from .objective import Means as Means
from .objective import Objective as Objective
from .optimizer import MatrixDecayAdamW as MatrixDecayAdamW
from .out_of_memory import OutOfMemory as OutOfMemory
from .progress import Progress as Progress
from .randomness import step_generator as step_generator
from .schedule import learning_rate_factor as learning_rate_factor
from .settings import TrainingSettings as TrainingSettings
from .speed import Speed as Speed

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .checkpoint import find_checkpoints as find_checkpoints
from .optimizer import build_optimizer as build_optimizer
from .out_of_memory import out_of_memory_in as out_of_memory_in
