"""From command-line options and YAML files to an experiment, by jsonargparse."""

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import calmkit

from .errors import ConfigError, Source, explain
from .experiment import CompareExperiment, Experiment, TrainExperiment

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["Parsed", "explained", "new_parser", "parse", "parse_function", "preset_names"]

PRESETS = Path(calmkit.__file__).parent / "presets"

E = TypeVar("E", bound=Experiment)


@dataclass(frozen=True)
class Parsed(Generic[E]):
    """A parsed experiment.

    Attributes:
        experiment: What to do.
        text: The effective config as YAML: every value, defaults included. Parsing it again
            gives the same experiment.
    """

    experiment: E
    text: str


def parse(kind: type[E], arguments: Sequence[str], *, preset: str, command: str) -> Parsed[E]:
    """Parse command-line options on top of a preset.

    Args:
        kind: `TrainExperiment` or `CompareExperiment`.
        arguments: Options such as `--config my.yaml --seed 3 --head.width 512`. `--config` takes
            a file or a preset's name. With several heads `--head.width` is set in all of them.
            `--checkpoint` begins with the config of a saved model, and the preset `finetune`.
        preset: The preset whose values, laid over those of `base`, hold where nothing else is
            given.
        command: What the user typed, for the help text.

    Raises:
        ConfigError: If anything is wrong; the text fits a screen and names the key, what is
            allowed, and the nearest right name.
    """
    parser = _experiment_parser(kind, command)
    start = ["--config", "base", "--config", preset]
    if kind is TrainExperiment:
        start += _start_of_finetuning(arguments)
    layers = _name_presets([*start, *arguments])
    if kind is CompareExperiment:
        layers = _spread_head_options(parser, kind, layers)
    values = _parse_layers(parser, kind, layers)
    for name in ("data", "finetune", "checkpoint"):
        if values.get(name):
            values[name] = Path(values[name]).expanduser().absolute()
    values.output = Path(values.output).expanduser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = parser.dump(values, skip_unset=False)
    try:
        built = parser.instantiate(values)
        experiment = kind(**{entry.name: built[entry.name] for entry in dataclasses.fields(kind)})
    except ValueError as error:
        said = _blame_group(kind, values, error)
        raise explain(said, kind, [Source("effective config", values.as_dict())]) from None
    return Parsed(experiment, text)


def parse_function(
    function: Callable[..., None], arguments: Sequence[str], *, command: str
) -> dict[str, Any]:
    """Parse options by the signature and docstring of a function, which is not called.

    Args:
        function: Its keyword-only parameters are the options.
        arguments: The options given.
        command: What the user typed, for the help text.

    Raises:
        ConfigError: If an option is unknown, missing or of the wrong type.
    """
    parser = new_parser(command)
    parser.usage = f"{command} [--KEY VALUE ...]"
    parser.add_function_arguments(function)
    fields = [
        (name, parameter.annotation)
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    kind = dataclasses.make_dataclass("Options", fields)
    with explained(kind, [Source.of_options(arguments)]):
        return vars(parser.parse_args(list(arguments)))


def preset_names() -> list[str]:
    """Names that `--config` takes besides files."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


@contextlib.contextmanager
def explained(kind: type, sources: list[Source]) -> Iterator[None]:
    """Turn what jsonargparse raises inside into a `ConfigError`.

    Args:
        kind: The dataclass that is filled.
        sources: Where values come from, the one with the last word first.
    """
    try:
        with warnings.catch_warnings():
            # jsonargparse warns when a new class does not take an old one's argument.
            warnings.simplefilter("ignore")
            yield
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise explain(str(error), kind, sources) from None


def new_parser(command: str) -> "ArgumentParser":
    """A parser that raises instead of exiting, and that reads no environment variables."""
    from jsonargparse import ArgumentParser

    return ArgumentParser(
        prog=command,
        usage=f"{command} [--config FILE_OR_PRESET] [--KEY VALUE ...]",
        exit_on_error=False,
        default_env=False,
    )


def _experiment_parser(kind: type[Experiment], command: str) -> "ArgumentParser":
    from lightning_fabric.loggers import Logger

    parser = new_parser(command)
    parser.description = (
        "Every key has a value in a preset, which --print_config shows; required ones are those "
        "that have no default besides. A part's own arguments are set as --backbone.depth 6; "
        "--backbone.help lists them."
    )
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help=f"YAML file, or a preset: {', '.join(preset_names())}. May be given several times.",
    )
    parser.add_class_arguments(kind, skip={"logger"})
    parser.add_argument(
        "--logger",
        type=Callable[[Path], Logger],
        required=True,
        help="Logger of the loss curves; receives the folder.",
    )
    return parser


def _name_presets(arguments: Sequence[str]) -> list[str]:
    """Put files in the place of presets' names; a file of that name goes first."""
    named = []
    expect = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option == "--config" and equals:
            named += ["--config", _config_file(value)]
        else:
            named.append(_config_file(argument) if expect else argument)
        expect = argument == "--config"
    return named


def _start_of_finetuning(arguments: Sequence[str]) -> list[str]:
    """The config of the model named by `--checkpoint`, and what fine-tuning does otherwise."""
    folder = Source.of_options(arguments).values.get("checkpoint")
    if not folder:
        return []
    config = Path(folder).expanduser() / "config.yaml"
    if not config.is_file():
        raise ConfigError(
            f"checkpoint {folder} must be a folder written by `calmkit train`; it has no "
            f"{config.name}."
        )
    return ["--config", str(config), "--config", "finetune"]


def _config_file(name: str) -> str:
    path = Path(name).expanduser()
    if path.is_file():
        return str(path)
    if name in preset_names():
        return str(PRESETS / f"{name}.yaml")
    raise ConfigError(
        f"--config {name}: there is no such file, and no such preset.",
        wrong=name,
        allowed=preset_names(),
    )


def _spread_head_options(
    parser: "ArgumentParser", kind: type[Experiment], layers: list[str]
) -> list[str]:
    """Write `--head.width 512` once for each compared head, before options of single heads."""
    common, single, rest = [], [], []
    index = 0
    while index < len(layers):
        width = 1 if "=" in layers[index] or not layers[index + 1 :] else 2
        option, entry = layers[index].partition("=")[0], layers[index : index + width]
        if option.startswith("--head."):
            common.append((option.removeprefix("--head."), entry))
        elif (
            option.startswith("--heads.") and option.count(".") > 1 and "class_path" not in option
        ):
            single += entry
        elif option == "--head":
            raise ConfigError(
                f"--head is an option of `calmkit train`; got {' '.join(entry)}. To compare one "
                "head only, write for instance: --heads '{mine: EnergyHead}'"
            )
        else:
            rest += entry
        index += width
    if not common:
        return layers
    names = _parse_layers(parser, kind, rest).heads
    spread = []
    for argument, entry in common:
        argument = argument.removeprefix("init_args.")
        value = entry[0].partition("=")[2] if "=" in entry[0] else "".join(entry[1:])
        spread += [f"--heads.{name}.init_args.{argument}={value}" for name in names]
    return rest + spread + single


def _parse_layers(
    parser: "ArgumentParser", kind: type[Experiment], layers: list[str]
) -> "Namespace":
    files = [
        Source.of_file(
            path := Path(value), f"preset {path.stem}" if path.parent == PRESETS else None
        )
        for option, value in itertools.pairwise(layers)
        if option == "--config"
    ]
    with explained(kind, [Source.of_options(layers), *reversed(files)]):
        return parser.parse_args(layers)


def _blame_group(kind: type[Experiment], values: "Namespace", error: ValueError) -> str:
    """Name the group of settings that refused a value: several have the same keys."""
    for entry in dataclasses.fields(kind):
        if isinstance(entry.type, type) and dataclasses.is_dataclass(entry.type):
            try:
                entry.type(**vars(values[entry.name]))
            except ValueError as found:
                return f"{entry.name}.{found}"
    return str(error)
