"""`calmkit harness`: run tasks of lm-evaluation-harness on a saved model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from calmkit.config import check_device, parse_function
from calmkit.extras import require
from calmkit.files import replace_file

from .mistakes import Failed, mistakes
from .output import folder_for_results, make_folder
from .trust import packages_in

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Run the tasks and write their results; see `_options`."""
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit harness")
        require("lm_eval", "this command")
        # These take seconds to import, which `--help` need not wait for.
        from lm_eval import simple_evaluate
        from lm_eval.utils import make_table

        from calmkit.experiments import device_of, load_checkpoint
        from calmkit.interop.lm_eval import CalmLM, NoLikelihoodError

        names = [name.strip() for name in chosen["tasks"].split(",") if name.strip()]
        check_device(chosen["accelerator"])
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=packages_in(chosen["trust"]))
        model = CalmLM(
            checkpoint.model.to(device_of(chosen["accelerator"])),
            checkpoint.tokenizer,
            **{name: chosen[name] for name in ("temperature", "candidates", "ranking_samples",
                                               "batch_size", "seed")},
        )  # fmt: skip
        manager = _manager(names, chosen["include_path"])
        output = chosen["output"] or folder_for_results(
            chosen["checkpoint"], checkpoint, "harness"
        )
        make_folder(output)
    try:
        results = simple_evaluate(
            model,
            tasks=names,
            task_manager=manager,
            num_fewshot=chosen["num_fewshot"],
            limit=chosen["limit"],
        )
    except NoLikelihoodError as error:
        raise Failed(str(error)) from None
    _write(results, output)
    print(make_table(results))
    if model.questions:
        print(
            f"Choices were ranked by the Brier score: only acc has a meaning. The draws left "
            f"{model.undecided} of {model.questions} questions undecided."
        )
    print(f"{output}/: results.json, samples_*.jsonl")


def _manager(names: list[str], folder: Path | None) -> "TaskManager":
    """Find the tasks, if possible among the user's own: the harness's take ten seconds to list.

    Raises:
        ValueError: If no task is named, or one is unknown.
    """
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise ValueError(f"include_path must be a folder of task files; got {folder}.")
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    if not names or (unknown := sorted(set(names) - set(manager.all_tasks))):
        wrong = ", ".join(unknown) if names else "none"
        raise ValueError(
            f"tasks must be names of tasks, groups or tags; got {wrong}. "
            "`lm-eval ls tasks` lists them; include_path adds your own."
        )
    return manager


def _write(results: Mapping[str, Any], output: Path) -> None:
    """Write the results in the harness's own form, with one file of answers per task."""
    from lm_eval.utils import handle_non_serializable

    def text(value: object, indent: int | None = None) -> str:
        return json.dumps(
            value, indent=indent, default=handle_non_serializable, ensure_ascii=False
        )

    for task, samples in results["samples"].items():
        replace_file(output / f"samples_{task}.jsonl", "".join(f"{text(x)}\n" for x in samples))
    replace_file(
        output / "results.json",
        text({name: value for name, value in results.items() if name != "samples"}, indent=2),
    )


def _options(
    *,
    checkpoint: Path,
    tasks: str,
    include_path: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    temperature: float | None = None,
    candidates: int = 64,
    ranking_samples: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    output: Path | None = None,
    trust: str = "",
) -> None:
    """Run tasks of lm-evaluation-harness on a saved model; most tasks download their data.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, a published checkpoint, or
            a model of the Hugging Face hub, owner/name.
        tasks: Comma-separated names of tasks.
        include_path: Folder with task files of your own, which may run code.
        num_fewshot: Solved examples before each question. None: as each task says.
        limit: Use only this many questions of each task, to try a command.
        temperature: Temperature of generated texts; 0 is greedy. None: as each task says.
        candidates: Draws per chunk at temperatures below 1.
        ranking_samples: Draws per chunk to rank the choices of multiple-choice tasks by the Brier
            score, a multiple of 8, for a model without likelihoods. None: such tasks are refused.
        batch_size: Texts that are generated or scored together.
        seed: The same seed gives the same answers.
        accelerator: Device to compute on; auto is the fastest one.
        output: Folder for results. None: `harness` in the checkpoint, or runs/NAME/harness for a
            model of the hub.
        trust: Comma-separated packages outside calmkit whose parts the model may name. They are
            imported and run; without this option only calmkit's own code runs.
    """
