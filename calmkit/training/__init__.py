"""Training: one loop for every part, with checkpoints that resume to the same numbers."""

from .checkpoint import CheckpointError as CheckpointError
from .evaluation import Evaluation as Evaluation
from .evaluation import EvaluationSettings as EvaluationSettings
from .evaluation import evaluate as evaluate
from .evaluation import evaluate_unigram as evaluate_unigram
from .loop import TrainingResult as TrainingResult
from .loop import fit as fit
from .optimizer import MatrixDecayAdamW as MatrixDecayAdamW
from .progress import Progress as Progress
from .randomness import step_generator as step_generator
from .run import Objective as Objective
from .run import TrainingDiverged as TrainingDiverged
from .schedule import learning_rate_factor as learning_rate_factor
from .settings import TrainingSettings as TrainingSettings
from .softmax_evaluation import SoftmaxEvaluation as SoftmaxEvaluation
from .softmax_evaluation import evaluate_softmax as evaluate_softmax
