"""Dispatch the command line to a command, and map its outcome to an exit code.

Each command is the function `run` of a module of this package, which imports its dependencies at
the top. This module imports nothing heavy before the command is known, so that `--help` and Ctrl-C
respond at once.
"""

import gc
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
from calmkit.spelling import nearest

from .helping import answer
from .parent_watch import watch_parent

__all__ = ["main"]

_COMMANDS = ("compare", "train", "evaluate", "features", "generate", "prepare", "data", "convert",
             "account", "check", "report", "harness")  # fmt: skip

# They take up what an interruption has left.
_RESUMING = ("compare", "train", "prepare")

_HELP = """usage: calmkit COMMAND [--config FILE_OR_PRESET] [--KEY VALUE ...]

Continuous autoregressive language models, part by part.

commands:
  compare    train several models on the same text, seeds and budget, and compare their scores
  train      train and save one model, or fine-tune a saved one on pairs with --finetune
  evaluate   evaluate a saved model on held-out text
  features   learn sparse features of a saved model, show them as text, and steer along them
  generate   generate text with a saved model
  prepare    tokenize text of any size into a folder: calmkit prepare SOURCE... --output DIR
  data       describe a prepared folder: calmkit data DIR [--output PICTURE.png] [--verify]
  convert    convert a model between the published format and calmkit's own
  account    compute parameters, FLOPs and memory of a model without building its weights
  check      run the contract tests on a part of your own: calmkit check my_head.MyHead
  report     merge several comparisons into one report: calmkit report DIR DIR --output DIR
  harness    run tasks of lm-evaluation-harness on a saved model

examples:
  calmkit compare                               the embedded English text, about five minutes
  calmkit train --head FlowHead --output runs/flow
  calmkit generate --checkpoint runs/flow --prompt "The value of" --temperature 0.5

calmkit COMMAND --help lists its options. Completion by Tab: eval "$(calmkit completion)"
"""

# Libraries that every command needs, by import name.
_NEEDED = ("cattrs", "jinja2", "jsonargparse", "lightning_fabric", "matplotlib", "rich",
           "safetensors", "tokenizers")  # fmt: skip
# The libraries of the extra `testing`; `check` needs no others.
_NEEDED_TO_CHECK = ("hypothesis", "jsonargparse")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows `calmkit` on the command line; `sys.argv` if None.

    Returns:
        The exit code.
    """
    watch_parent()
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal or a pipe cannot display must not end hours of training.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _interrupts_noted() as interrupts:
        try:
            return _run(given, interrupts)
        except BaseException as error:
            if not (interrupts.noted or isinstance(error, KeyboardInterrupt)):
                raise
            more = " The same command goes on." if given[:1] and given[0] in _RESUMING else ""
            _print_error(f"was interrupted by Ctrl-C; what is written is kept.{more}")
            return 130


def _run(given: list[str], interrupts: "_Interrupts") -> int:
    """Run a command and flush its output; return the exit code."""
    try:
        code = _dispatch(given, interrupts)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except OSError as error:
        _drop_output()
        where = "the output" if error.filename is None else os.fspath(error.filename)
        _print_error(f"{_command(given)}: {where}: {error.strerror or error}.")
        return 1


def _dispatch(given: list[str], interrupts: "_Interrupts") -> int:
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        print(f"calmkit {__version__}")
        return 0
    if command == "completion":
        from .completion import SCRIPT, words

        asked = given[1:2] == ["words"]
        print("\n".join(words(given[2:], _COMMANDS)) if asked else SCRIPT, end="\n" * asked)
        return 0
    if command not in _COMMANDS:
        meant = nearest(command, _COMMANDS)
        hint = "" if meant is None else f"\n  did you mean: {meant}"
        _print_error(f"{_command(given)}: not a command.{hint}\n  allowed: {', '.join(_COMMANDS)}")
        return 2
    needed, extra = (_NEEDED_TO_CHECK, "testing") if command == "check" else (_NEEDED, "cli")
    if missing := [name for name in needed if not is_installed(name)]:
        _print_error(
            f"{command} needs {', '.join(missing)}; "
            f"install it with pip install 'calmkit[{extra}]'."
        )
        return 2
    if (text := answer(command, given[1:])) is not None:
        print(text, end="")
        return 0
    name = f"calmkit.cli.{command}"
    with interrupts.deferred(), _uncollected(freeze=name not in sys.modules):
        module = importlib.import_module(name)
        from calmkit.config import HelpText
        from calmkit.disk import WriteError
        from calmkit.text import EncodingError
        from calmkit.training import OutOfMemory, TrainingDiverged

        from .mistakes import Failed, Mistake
        from .warned import warnings_in_one_line

    # Like `python -m`: a head in my_heads.py of this folder is `my_heads.MyHead`. The folder comes
    # last, so that no file in it shadows an installed module.
    if _may_import_from_here(given) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        with warnings_in_one_line(command):
            module.run(given[1:])
    except HelpText as text:
        print(text, end="")
        return 0
    except SystemExit as end:  # raised by --print_config
        return int(end.code or 0)
    except (Mistake, OutOfMemory) as error:
        _print_error(f"{command}: {error}")
        return 2
    except ImportError as error:
        if "calmkit[" not in (message := with_remedy(str(error))):
            raise
        _print_error(f"{command}: {message}")
        return 2
    except (EncodingError, TrainingDiverged, WriteError, Failed) as error:
        _print_error(f"{command}: {error}")
        return 1
    return 0


@contextmanager
def _uncollected(*, freeze: bool) -> Iterator[None]:
    """Context for imports: objects of modules live as long as the process.

    Python's garbage collector would look at all of them again and again, which takes a sixth of
    the time until a command starts.

    Args:
        freeze: Whether it ignores the objects that exist at the end, from then on.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was_on:
            gc.enable()


def _may_import_from_here(given: Sequence[str]) -> bool:
    """Whether the current folder may hold the user's own code, rather than a downloaded model.

    Libraries try to import many modules that are not installed, such as `triton`. In the folder of
    a downloaded model, that would run a file of that name.
    """
    options = {option.partition("=")[0] for option in given}
    own = given[0] in ("train", "compare", "account", "check") and "--checkpoint" not in options
    return own or "--trust" in options


class _Interrupts:
    """Notes each Ctrl-C, besides raising KeyboardInterrupt.

    While a compiled module is imported, Python may turn that exception into another one.

    Attributes:
        noted: Whether there was one.
    """

    def __init__(self) -> None:
        self.noted = self._wait = False

    def handle(self, number: int, frame: object) -> None:
        """What the signal calls."""
        self.noted = True
        if not self._wait:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Wait for the end of imports: torch aborts the process if its loading is interrupted."""
        self._wait = True
        try:
            yield
        finally:
            self._wait = False
        if self.noted:
            raise KeyboardInterrupt


@contextmanager
def _interrupts_noted() -> Iterator[_Interrupts]:
    """The notes of each Ctrl-C inside the context."""
    interrupts = _Interrupts()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _drop_output() -> None:
    """Discard further output to a closed stdout, which Python would report again at exit."""
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(given: list[str]) -> str:
    """The first word of the command line, shortened if it is too long for a command."""
    return given[0] if given and len(given[0]) <= 80 else f"{''.join(given[:1])[:60]}..."


def _print_error(text: str) -> None:
    """Print to stderr; long lines are shortened."""
    lines = [x if len(x) <= 400 else f"{x[:300]} ... {x[-60:]}" for x in text.splitlines()]
    print("calmkit " + "\n".join(lines), file=sys.stderr, flush=True)
