"""Parse command-line options and YAML files into an experiment, with jsonargparse."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmkit.extras import require
from calmkit.manual import (
    PRESETS,
    arguments_page,
    find,
    options_of,
    parts_page,
    preset_names,
)
from calmkit.schema import (
    ConfigError,
    HelpAsked,
    Source,
    arguments_of,
    check_layers,
    explain,
    refusals_named,
    shown,
    wanted,
)

from .experiment import TrainExperiment
from .model_config import FOR_EVALUATION, FOR_FINETUNING, read_model_config
from .named_autoencoder import with_named_autoencoder
from .named_logger import with_named_logger
from .vocab_size import vocabulary_of_data
from .warmups import shortened_warmups
from .yaml_text import text_of, values_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from .config_layers import ConfigLayers

__all__ = [
    "HelpText", "Parsed", "explained", "layers_shared", "new_parser",
    "option_pairs", "parse", "parse_for_evaluation", "parse_function", "parse_layers",
    "parse_text", "preset_source", "source_of",
]  # fmt: skip

# The name under which jsonargparse knows our way to write YAML.
_FORMAT = "calmkit"


class HelpText(Exception):
    """The help that an option asks for, instead of a parsed config."""


@dataclass(frozen=True)
class Parsed:
    """A parsed experiment.

    Attributes:
        experiment: The experiment.
        text: The effective config as YAML: every value, including defaults. Parsing it again
            gives the same experiment.
    """

    experiment: TrainExperiment
    text: str


def parse(
    arguments: Sequence[str],
    *,
    preset: str = "train",
    command: str,
    trust: Collection[str] = (),
) -> Parsed:
    """Parse command-line options on top of a preset.

    Args:
        arguments: Options such as `--config my.yaml --seed 3 --head.width 512`. `--config` takes
            a file or a preset's name. `--checkpoint` adds the config of a saved model and the
            preset `finetune` to the defaults.
        preset: The preset with the default values, which override those of `base`.
        command: The command as typed, for the help text.
        trust: Packages outside calmkit whose classes the config of that saved model, or a saved
            autoencoder, may name.

    Raises:
        SavedModelError: If that config names other code, or is damaged.
        ConfigError: If anything is wrong; the message fits on a screen and names the key, the
            valid values and the closest match.
    """
    layers = [preset_source("base"), preset_source(preset)]
    layers += _start_of_finetuning(arguments, trust)
    options = []
    for option, value in option_pairs(arguments):
        if option == "--config" and value is not None:
            layers.append(source_of(value, "train"))
        else:
            options.append(option if value is None else f"{option}={value}")
    return parse_layers(layers, options, command=command, trust=trust)


def parse_for_evaluation(
    path: Path, options: Collection[str], *, trust: Collection[str] = (), command: str
) -> Parsed:
    """Parse the config of a model's folder, without the keys that only concern training.

    Args:
        path: The file.
        options: Options that override it, as `--key=value`.
        trust: As in `read_model_config`.
        command: The command as typed, for the help text.

    Returns:
        The experiment, with the folder as its output and the optimisers and the logger of the
        preset `train`; the text contains the keys that were read.

    Raises:
        ValueError: As in `read_model_config` and `parse`.
    """
    saved = read_model_config(path, keys=FOR_EVALUATION, trust=trust)
    layers = [preset_source("base"), preset_source("train"), saved]
    parsed = parse_layers(layers, [*options, f"--output={path.parent}"], command=command)
    values = values_of(parsed.text)
    kept = {key: value for key, value in values.items() if key in FOR_EVALUATION}
    return Parsed(parsed.experiment, text_of(kept))


def parse_text(
    text: str, overrides: Mapping[str, Any] | None = None, options: Sequence[str] = ()
) -> Parsed:
    """Parse an effective config, as in `Parsed.text`.

    Args:
        text: The config.
        overrides: Keys laid over it.
        options: Options that override both, as `--key=value`.

    Raises:
        ConfigError: If the config is invalid.
    """
    layers = [Source("config", values_of(text)), Source("overrides", overrides or {})]
    return parse_layers(layers, options, command="calmkit train")


@contextlib.contextmanager
def layers_shared(command: str) -> Iterator[None]:
    """Context for configs that begin with the same layers, which are merged once."""
    with _experiment_parser(command)[1].layers_shared():
        yield


def parse_layers(
    layers: Sequence[Source],
    options: Sequence[str],
    *,
    command: str,
    trust: Collection[str] = (),
) -> Parsed:
    """Merge configs and options; later ones override earlier ones.

    Args:
        layers: Configs in the order of merging.
        options: Options that override them, as `--key=value`.
        command: The command as typed, for the help text.
        trust: Packages outside calmkit that may define a saved autoencoder.

    Raises:
        ConfigError: As in `parse`.
        UntrustedCodeError: If a saved autoencoder is of a class that is not in `trust`.
    """
    schema = arguments_of(TrainExperiment)
    layers, options = with_named_logger(layers, options)
    layers, options = with_named_autoencoder(layers, options, trust)
    layers = [
        *layers,
        *vocabulary_of_data(layers, options),
        *shortened_warmups(layers, options),
    ]
    answer_help(check_layers(schema, layers, options), command)
    parser, layering = _experiment_parser(command)
    texts = [(text_of(layer.values), layer.is_preset) for layer in layers if layer.values]
    layering.presets.update(text for text, is_preset in texts if is_preset)
    given = [f"--config={text}" for text, _ in texts]
    with explained():
        values = parser.parse_args([*given, *options])
    for name in ("data", "evaluation_data", "finetune", "checkpoint"):
        if isinstance(values.get(name), dict):
            for text in values[name].values():
                text.path = text.path.expanduser().absolute()
        elif values.get(name):
            values[name] = Path(values[name]).expanduser().absolute()
    values.output = Path(values.output).expanduser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The values have just been parsed, and need no other check.
        text = parser.dump(values, _FORMAT, skip_unset=False, skip_validation=True)
    with explained(), refusals_named(schema, values.as_dict()):
        built = parser.instantiate(values)
        entries = dataclasses.fields(TrainExperiment)
        experiment = TrainExperiment(**{entry.name: built[entry.name] for entry in entries})
    return Parsed(experiment, text)


def option_pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Pair options with their values; an option without a value gets None.

    Raises:
        ConfigError: If an argument is not an option.
    """
    left = list(arguments)
    while left:
        option, equals, value = left.pop(0).partition("=")
        if not option.startswith("--"):
            raise ConfigError(f"{option}: expected an option of the form --key value.")
        if equals:
            yield option, value
        else:
            follows = bool(left) and not left[0].startswith("--")
            yield option, left.pop(0) if follows else None


def source_of(name: str, command: str) -> Source:
    """The config file or preset of that name; a file takes precedence.

    Args:
        name: The path or the name.
        command: `train` or `compare`, whose presets a message lists.

    Raises:
        ConfigError: If neither exists, or the file cannot be read.
    """
    path = Path("" if wanted(Path, name) else name).expanduser()
    if path.is_file():
        return Source.of_file(path)
    if name in preset_names():
        return preset_source(name)
    raise ConfigError(
        f"--config {name if len(name) <= 80 else shown(name)}: there is no such file, and no such "
        "preset.",
        wrong=name,
        allowed=preset_names(command),
    )


@functools.cache
def preset_source(name: str) -> Source:
    """The preset of that name, even if the current folder holds a file of the same name."""
    source = Source.of_file(PRESETS / f"{name}.yaml", f"preset {name}")
    return dataclasses.replace(source, is_preset=True)


def parse_function(
    function: Callable[..., None], arguments: Sequence[str], *, command: str
) -> dict[str, Any]:
    """Parse options by the signature and docstring of a function, which is not called.

    Args:
        function: Its keyword-only parameters are the options.
        arguments: The options.
        command: The command as typed, for the help text.

    Raises:
        ConfigError: If an option is unknown, missing or of the wrong type.
    """
    given = [o if v is None else f"{o}={v}" for o, v in option_pairs(arguments)]
    answer_help(check_layers(arguments_of(function), [], given), command)
    parser = new_parser(command)
    parser.add_function_arguments(function)
    with explained():
        return vars(parser.parse_args(given))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Convert exceptions of jsonargparse into a `ConfigError`."""
    try:
        with warnings.catch_warnings():
            # jsonargparse warns if a new class does not take an argument of the old one.
            warnings.simplefilter("ignore")
            yield
    except ConfigError:
        raise
    except Exception as error:  # classes named by the config may raise anything
        raise explain(error) from None


def new_parser(command: str) -> "ArgumentParser":
    """A parser that raises instead of exiting, and ignores environment variables."""
    require("jsonargparse", command)
    from jsonargparse import ArgumentParser

    return ArgumentParser(prog=command, exit_on_error=False, default_env=False)


def answer_help(asked: HelpAsked | None, command: str) -> None:
    """Raise the help that an option asks for.

    Raises:
        HelpText: If one does: the classes of a part, and the arguments of one of them.
    """
    if asked is None:
        return
    pages, name = [], getattr(asked.made, "__name__", "")
    if asked.listed is not None:
        pages.append(parts_page(asked.key, asked.listed, command=command, current=name))
    if (found := find(getattr(asked.made, "__module__", ""), name)) is not None:
        options = options_of(found)[asked.bound :]
        defaults = ", with its own defaults (a config may set others)"
        pages.append(arguments_page(asked.key, name, options, command=command, defaults=defaults))
    raise HelpText("\n".join(pages))


@functools.cache
def _experiment_parser(command: str) -> "tuple[ArgumentParser, ConfigLayers]":
    """The parser for the keys of `TrainExperiment`, and its option for layers.

    To make it takes as long as to use it.
    """
    parser = new_parser(command)
    from jsonargparse import set_dumper

    from .config_layers import ConfigLayers

    set_dumper(_FORMAT, text_of)
    layering = parser.add_argument("--config", action=ConfigLayers)
    assert isinstance(layering, ConfigLayers)
    parser.add_class_arguments(TrainExperiment)
    return parser, layering


def _start_of_finetuning(arguments: Sequence[str], trust: Collection[str]) -> list[Source]:
    """The config of the model named by `--checkpoint`, then the preset `finetune`."""
    folder = Source.of_options(arguments).values.get("checkpoint")
    if not folder:
        return []
    if expected := wanted(Path, folder):
        raise ConfigError(f"checkpoint must be {expected}; got {shown(folder)} (command line).")
    config = Path(folder).expanduser() / "config.yaml"
    if not config.is_file():
        missing = f"it has no {config.name}"
        if not config.parent.is_dir():
            missing = (
                "there is none. All files of a model of the hub are downloaded by "
                "`hf download owner/name --local-dir DIR`"
            )
        raise ConfigError(
            f"checkpoint {folder} must be a folder written by `calmkit train`; {missing}."
        )
    saved = read_model_config(config, keys=FOR_FINETUNING, trust=trust)
    return [saved, preset_source("finetune")]
