"""Experiments with one model: prepare, train, save, evaluate, and generate text."""

from .run_result import RunResult as RunResult

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .evaluating import device_of as device_of
from .evaluating import evaluate_checkpoint as evaluate_checkpoint
from .evaluating import plan_evaluation as plan_evaluation
from .evaluation_plan import EvaluationPlan as EvaluationPlan
from .finetuning import PreparedPairs as PreparedPairs
from .finetuning import finetune as finetune
from .finetuning import prepare_finetuning as prepare_finetuning
from .generating import pieces_of_text as pieces_of_text
from .generating import read_prompts as read_prompts
from .generating import stream_of_tokens as stream_of_tokens
from .generating import write_texts as write_texts
from .hardware import fabric_of as fabric_of
from .hardware import threads_of_a_run as threads_of_a_run
from .hardware import with_threads as with_threads
from .keys import autoencoder_key as autoencoder_key
from .keys import code_of_result as code_of_result
from .keys import result_key as result_key
from .keys import training_key as training_key
from .measuring import time_generation as time_generation
from .model_folder import Checkpoint as Checkpoint
from .model_folder import convert_checkpoint as convert_checkpoint
from .model_folder import load_checkpoint as load_checkpoint
from .model_folder import save_checkpoint as save_checkpoint
from .preparing import prepare as prepare
from .resuming import CHECKPOINTS as CHECKPOINTS
from .resuming import check_resumable as check_resumable
from .run_progress import RunProgress as RunProgress
from .run_progress import Silent as Silent
from .run_progress import bytes_encoded as bytes_encoded
from .run_record import RunRecord as RunRecord
from .trainer import Trainer as Trainer
from .trainer import autoencoder_objective as autoencoder_objective
from .trainer import model_objective as model_objective
from .training_from_scratch import train as train
from .training_inputs import inputs_of as inputs_of
