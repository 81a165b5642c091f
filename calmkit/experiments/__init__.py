"""One model from text to numbers: prepared, trained, saved, measured, and put to use."""

from .run_result import RunResult as RunResult

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .code_digest import changes as changes
from .finetuning import finetune as finetune
from .finetuning import prepare_finetuning as prepare_finetuning
from .hardware import describe_hardware as describe_hardware
from .hardware import threads_of_a_run as threads_of_a_run
from .hardware import with_threads as with_threads
from .keys import autoencoder_key as autoencoder_key
from .keys import code_of_result as code_of_result
from .keys import result_key as result_key
from .keys import training_key as training_key
from .model_accounts import account_parts as account_parts
from .model_accounts import account_preset as account_preset
from .model_folder import Checkpoint as Checkpoint
from .model_folder import check_config_fits as check_config_fits
from .model_folder import convert_checkpoint as convert_checkpoint
from .model_folder import load_checkpoint as load_checkpoint
from .model_folder import save_checkpoint as save_checkpoint
from .preparing import check_rows as check_rows
from .preparing import prepare as prepare
from .preparing import rows_to_diagnose as rows_to_diagnose
from .preparing import with_other_text as with_other_text
from .resuming import CHECKPOINTS as CHECKPOINTS
from .resuming import check_resumable as check_resumable
from .run_progress import RunProgress as RunProgress
from .run_progress import Silent as Silent
from .run_record import RunRecord as RunRecord
from .run_record import describe_model as describe_model
from .run_record import metrics_of as metrics_of
from .run_record import train_model as train_model
from .run_result import plain as plain
from .run_result import run_from_json as run_from_json
from .run_result import strict_json as strict_json
from .run_result import understood as understood
from .single_model import evaluate_checkpoint as evaluate_checkpoint
from .single_model import train as train
from .stages import Lab as Lab
from .stages import model_objective as model_objective
from .standalone import Protocol as Protocol
from .standalone import ScoredText as ScoredText
from .standalone import measure as measure
from .standalone import text_to_score as text_to_score
from .texts import choose_sampler as choose_sampler
from .texts import pieces_of_text as pieces_of_text
from .texts import read_prompts as read_prompts
from .texts import write_texts as write_texts
