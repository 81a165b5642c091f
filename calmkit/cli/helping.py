"""The help of each command, from the source of what it is about; nothing heavy is imported.

`calmkit train --help` lists the options most used first, and then all of them in groups, each with
the value that the presets give it. `--head.help` lists the heads and the arguments of the default
one, and `--head.help FlowHead` those of another. What calmkit's own source does not tell, such as
the arguments of an optimiser, is left to the parser.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from calmkit.manual import (
    COMPARISON_OPTIONS,
    LOGGERS,
    Definition,
    Option,
    arguments_page,
    description_of,
    find,
    number_bound,
    one_line,
    options_of,
    page,
    part_classes,
    part_of_hint,
    parts_page,
    preset_defaults,
    preset_names,
    preset_purpose,
    two_columns,
)

__all__ = [
    "EXPERIMENTS",
    "Key",
    "answer",
    "experiment_options",
    "named_by",
    "options_of_command",
    "parts_of",
]

EXPERIMENTS = ("train", "compare")

_WORDS = {"data": "DIR", "prepare": "SOURCE...", "report": "DIR DIR...", "check": "PATH"}

_CONFIG = "FILE_OR_PRESET"
_TRUST = Option(
    "trust", "NAMES", "empty",
    "With --checkpoint: comma-separated packages outside calmkit whose classes the saved model "
    "and its config may name; their code runs.",
)  # fmt: skip
_PRINT_CONFIG = ("--print_config", "Print the effective config as YAML, and stop.")

_MOST_USED = (
    "data", "output", "head", "backbone", "chunk_size", "training.steps", "training.batch_size",
    "seed", "dry_run",
)  # fmt: skip
# A comparison trains each model from scratch, on one device.
_NOT_COMPARED = ("dry_run", "devices", "num_nodes", "strategy", "finetune", "checkpoint")
_GROUPS = {
    "the model": (
        "model", "vocab_size", "chunk_size", "latent_size", "hidden_size", "positions",
        "autoencoder", "autoencoder_from", "standardize", "normalize", "input", "input_noise",
        "input_noise_warmup", "backbone", "tie_embeddings", "head", "cross_entropy_weight",
        "pull_weight",
    ),
    "its text": ("data", "validation_fraction", "cache_dir"),
    "training of backbone and head": ("optimizer", "training", "seed"),
    "training of the autoencoder": ("autoencoder_optimizer", "autoencoder_training"),
    "fine-tuning on pairs": ("finetune", "checkpoint"),
    "evaluation": (
        "evaluation_data", "evaluation", "evaluation_seed", "validation_rows", "sampler",
        "sample_tokens",
    ),
    "devices": ("accelerator", "devices", "num_nodes", "strategy", "precision", "compile"),
    "results": ("output", "logger", "dry_run"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of an experiment.

    Attributes:
        option: The key, with the default of the presets.
        part: The class that its value is below; None if it is no part of calmkit.
    """

    option: Option
    part: Definition | None = None

    @property
    def bound(self) -> int:
        """The number of a part's arguments that come from the shared sizes."""
        return number_bound(self.option.hint)


def answer(command: str, given: Sequence[str]) -> str | None:
    """The help that a command line asks for.

    Args:
        command: The command.
        given: The words after it.

    Returns:
        None if it asks for none, or the parser has to answer it.
    """
    for place, word in enumerate(given):
        value = "".join(given[place + 1 : place + 2])
        value = "" if value.startswith("--") else value
        if word == "-h" or (word == "--help" and not value):
            return _page_of(command)
        if word.startswith("--") and ".help" in word and command in EXPERIMENTS:
            key, _, name = word.removeprefix("--").partition("=")
            if key == "config.help":
                return _page_of_presets(command)
            return _page_of_part(command, key.removesuffix(".help"), name or value, given)
    return None


def experiment_options(command: str) -> dict[str, Key]:
    """The keys of an experiment by their dotted names, with the defaults of a command."""
    schema = find("calmkit.config.experiment", "TrainExperiment")
    defaults = preset_defaults("base", command)
    keys = {}
    for option in [] if schema is None else options_of(schema):
        if command == "compare" and option.name in _NOT_COMPARED:
            continue
        group = part_of_hint(option.hint, option.module, group=True)
        if group is not None:
            for inner in options_of(group):
                name = f"{option.name}.{inner.name}"
                default = defaults.get(name, inner.default)
                keys[name] = Key(dataclasses.replace(inner, name=name, default=default))
            continue
        default = defaults.get(option.name, option.default)
        part = part_of_hint(option.hint, option.module)
        keys[option.name] = Key(dataclasses.replace(option, default=default), part)
    return keys


def options_of_command(command: str) -> list[Option]:
    """The options of a command that is no experiment."""
    found = find(f"calmkit.cli.{command}", "_options")
    return [] if found is None else options_of(found)


def parts_of(key: str, part: Definition) -> dict[str, str]:
    """The classes that a key may name, each with the first line of its docstring."""
    lines = {name: one_line(found) for name, found in part_classes(part).items()}
    return {short: lines[name] for short, name in LOGGERS.items()} if key == "logger" else lines


def _page_of(command: str) -> str:
    if command in EXPERIMENTS:
        return _page_of_experiment(command)
    found = find(f"calmkit.cli.{command}", "_options")
    description = "" if found is None else description_of(found)
    words = f" {_WORDS[command]}" if command in _WORDS else ""
    usage = f"usage: calmkit {command}{words} [--KEY VALUE ...]"
    return f"{usage}\n\n{description}\n\n{page(options_of_command(command), title='options:')}"


def _page_of_experiment(command: str) -> str:
    keys = experiment_options(command)
    presets = (
        "A YAML file, or a preset; may be repeated. --config.help says what each preset is for: "
        f"{_listed(command)}."
    )
    most_used = [(f"--config {_CONFIG}", presets)]
    pages = [
        f"usage: calmkit {command} [--config {_CONFIG}] [--KEY VALUE ...]\n",
        "Every key has a value from the presets; it is shown as the default. Set an argument of a "
        "part\nwith --backbone.depth 6; --backbone.help lists the backbones.\n",
        two_columns(most_used, title="most used:")
        + page([_with_hint(keys[name]) for name in _MOST_USED if name in keys]),
    ]
    if command == "compare":
        pages.append(page(COMPARISON_OPTIONS, title="the comparison:"))
    for title, names in _GROUPS.items():
        chosen = [key for key in _inside(names, keys) if key.option.name not in _MOST_USED]
        if title == "training of the autoencoder":
            pages.append(_like_training(title, chosen, keys))
        elif title == "fine-tuning on pairs":
            if chosen:
                pages.append(page([*map(_with_hint, chosen), _TRUST], title=f"{title}:"))
        else:
            pages.append(page([*map(_with_hint, chosen)], title=f"{title}:"))
    return "\n".join(pages) + two_columns([_PRINT_CONFIG])


def _inside(names: Iterable[str], keys: Mapping[str, Key]) -> list[Key]:
    """The keys of these names, and those of groups."""
    return [
        key for name in names for full, key in keys.items() if full == name
        or full.startswith(f"{name}.")
    ]  # fmt: skip


def _like_training(title: str, chosen: Sequence[Key], keys: Mapping[str, Key]) -> str:
    """The optimiser, and one line for settings that the other training describes."""
    differing = [
        f"{key.option.name.partition('.')[2]} {key.option.default}"
        for key in chosen
        if (like := keys.get(key.option.name.removeprefix("autoencoder_"))) is not None
        and "." in key.option.name
        and like.option.default != key.option.default
    ]
    settings = (
        "--autoencoder_training.KEY",
        f"As --training.KEY. Other defaults: {', '.join(differing)}.",
    )
    optimizers = [_with_hint(key) for key in chosen if "." not in key.option.name]
    return page(optimizers, title=f"{title}:") + two_columns([settings])


def _with_hint(key: Key) -> Option:
    """The option; one of a part says how to list its classes."""
    if key.option.kind != "CLASS":
        return key.option
    text = f"{key.option.text} --{key.option.name}.help lists the classes."
    return dataclasses.replace(key.option, text=text)


def _listed(command: str) -> str:
    return ", ".join(preset_names(command))


def _page_of_presets(command: str) -> str:
    """The presets of a command, each with the question or size that it stands for."""
    entries = [(name, preset_purpose(name)) for name in preset_names(command)]
    return (
        f"usage: calmkit {command} --config {_CONFIG} [--config {_CONFIG} ...]\n\n"
        f"{two_columns(entries, title='presets; later ones are laid over earlier ones:')}\n"
        "With --print_config a command prints the effective config, and stops.\n"
    )


def _page_of_part(command: str, key: str, name: str, given: Sequence[str]) -> str | None:
    """The classes of a key, or the arguments of one; None if the parser has to answer."""
    keys, usage = experiment_options(command), f"calmkit {command}"
    if settings := [one.option for full, one in keys.items() if full.startswith(f"{key}.")]:
        return page(settings, title=f"settings of {key}:")
    if key not in keys or (part := keys[key].part) is None:
        return None
    pages, shown = [], name
    if not name:
        if any(word.startswith(("--config", f"--{key}=", "--checkpoint")) for word in given):
            return None
        shown = named_by(key, given) or keys[key].option.default or ""
        pages.append(parts_page(key, parts_of(key, part), command=usage, current=shown))
    found = part_classes(part).get(LOGGERS.get(shown, shown))
    if found is not None:
        defaults = preset_defaults("base", command)
        options = [
            dataclasses.replace(one, default=defaults.get(f"{key}.{one.name}", one.default))
            for one in options_of(found)[keys[key].bound :]
        ]
        pages.append(arguments_page(key, shown, options, command=usage))
    elif shown not in ("", "null"):  # a class of elsewhere
        return None
    return "\n".join(pages)


def named_by(key: str, given: Sequence[str]) -> str:
    """The class that the option of a key names; empty if there is none."""
    return next((two for one, two in itertools.pairwise(given) if one == f"--{key}"), "")
