"""From the words on the command line to a command, and from its end to an exit code.

Each command is the function `run` of a module of this package, which imports at its top what it
needs. Nothing heavy is imported here before a command is known, so that help, and Ctrl-C, answer
at once.
"""

import difflib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from calmkit import __version__
from calmkit.extras import is_installed, with_remedy

__all__ = ["main"]

_COMMANDS = ("compare", "train", "evaluate", "generate", "prepare", "data", "convert", "account",
             "check", "report")  # fmt: skip

_HELP = """usage: calmkit COMMAND [--config FILE_OR_PRESET] [--KEY VALUE ...]

Continuous autoregressive language models, part by part.

commands:
  compare    train several models on equal text, seeds and budget; print what each is worth
  train      train one model and save it, or a saved one further, on pairs, with --finetune
  evaluate   measure a saved model on held-out text
  generate   write text with a saved model
  prepare    text of any size as a folder of token ids: calmkit prepare SOURCE... --output DIR
  data       what is inside such a folder: calmkit data DIR [--output PICTURE.png] [--verify]
  convert    write a published model in calmkit's format, or the other way
  account    parameters, FLOPs and memory of a model, without building its weights
  check      run the contracts of its kind on a part of your own: calmkit check my_head.MyHead
  report     several comparisons as one: calmkit report DIR DIR --output DIR

examples:
  calmkit compare                               the embedded English text, about five minutes
  calmkit compare --data texts/ --head.width 256 --variants.flow.head.depth 6
  calmkit compare --config heads --data texts/  a question of the paper: see the presets
  calmkit train --head FlowHead --output runs/flow
  calmkit generate --checkpoint runs/flow --prompt "The value of" --temperature 0.5

calmkit COMMAND --help lists the options of a command; calmkit --version prints the version.
"""

# Libraries that every command needs, by the name they are imported under.
_NEEDED = ("cattrs", "jinja2", "jsonargparse", "lightning_fabric", "matplotlib", "rich",
           "safetensors", "tokenizers")  # fmt: skip
# Those of the extra `testing`, which is all that `check` needs.
_NEEDED_TO_CHECK = ("hypothesis", "jsonargparse")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows `calmkit` on the command line; `sys.argv` if None.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal or a pipe cannot show must not end hours of training.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _interrupts_noted() as interrupts:
        try:
            return _run(given)
        except BaseException as error:
            if not (interrupts or isinstance(error, KeyboardInterrupt)):
                raise
            _say("was interrupted by Ctrl-C; what had been written is kept.")
            return 130


def _run(given: list[str]) -> int:
    """Run a command, and hand its output over; return the exit code."""
    try:
        code = _dispatch(given)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except OSError as error:
        _drop_output()
        where = "the output" if error.filename is None else os.fspath(error.filename)
        _say(f"{_command(given)}: {where}: {error.strerror or error}.")
        return 1


def _dispatch(given: list[str]) -> int:
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        print(f"calmkit {__version__}")
        return 0
    if command not in _COMMANDS:
        nearest = difflib.get_close_matches(command, _COMMANDS, n=1, cutoff=0.5)
        hint = "".join(f"\n  did you mean: {name}" for name in nearest)
        _say(f"{_command(given)}: not a command.{hint}\n  allowed: {', '.join(_COMMANDS)}")
        return 2
    needed, extra = (_NEEDED_TO_CHECK, "testing") if command == "check" else (_NEEDED, "cli")
    if missing := [name for name in needed if not is_installed(name)]:
        _say(
            f"{command} needs {', '.join(missing)}; "
            f"install it with pip install 'calmkit[{extra}]'."
        )
        return 2
    module = importlib.import_module(f"calmkit.cli.{command}")
    from calmkit.disk import WriteError
    from calmkit.text import EncodingError
    from calmkit.training import TrainingDiverged

    from .mistakes import Failed, Mistake
    from .warned import warnings_in_one_line

    # As `python -m` does: a head in my_heads.py of this folder is `my_heads.MyHead`. Last, so
    # that no file here hides an installed module.
    if _may_import_from_here(given) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        with warnings_in_one_line(command):
            module.run(given[1:])
    except SystemExit as end:  # --help and --print_config end so
        return int(end.code or 0)
    except Mistake as error:
        _say(f"{command}: {error}")
        return 2
    except ImportError as error:
        if "calmkit[" not in (said := with_remedy(str(error))):
            raise
        _say(f"{command}: {said}")
        return 2
    except (EncodingError, TrainingDiverged, WriteError, Failed) as error:
        _say(f"{command}: {error}")
        return 1
    return 0


def _may_import_from_here(given: Sequence[str]) -> bool:
    """Whether the user's own code may be in the current folder, and no model from elsewhere.

    Libraries try to import many modules that are not installed, `triton` for one. Whoever stands
    in a model's folder would run a file of that name in it.
    """
    options = {option.partition("=")[0] for option in given}
    own = given[0] in ("train", "compare", "account", "check") and "--checkpoint" not in options
    return own or "--trust" in options


@contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt, as ever, and is added to a list.

    While a compiled module is imported, Python may turn that exception into another one.
    """
    noted: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield noted
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _drop_output() -> None:
    """Nothing more can be written there; Python would complain once more when it exits."""
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(given: list[str]) -> str:
    """The command's word, cut if it is none."""
    return given[0] if given and len(given[0]) <= 80 else f"{''.join(given[:1])[:60]}..."


def _say(text: str) -> None:
    """Tell it on stderr; what is as long as a file is cut."""
    lines = [x if len(x) <= 400 else f"{x[:300]} ... {x[-60:]}" for x in text.splitlines()]
    print("calmkit " + "\n".join(lines), file=sys.stderr, flush=True)
