"""A comparison as one YAML file: the keys that all variants share, and the keys of each variant.

    seeds: 3                         # or a list: [0, 1, 2]
    budget: flops                    # held equal: steps, flops (of training) or seconds
    training: {steps: 400}           # any key of `calmkit train` applies to all variants
    variants:
      energy: {head: EnergyHead}     # the same keys, for one variant
      flow: {head: {class_path: FlowHead, init_args: {width: 128}}}
    grid:                            # every variant is run with every combination
      latent_size: [16, 32]

Each variant becomes the config of one model. Its values are merged in this order: shared keys, the
variant's own keys, options for all variants (`--head.width 256`), the grid, options for one
variant (`--variants.flow.head.depth 6`). A head for a name that no config has adds a variant:
`--variants.mine.head my_head.MyHead`. Everything is parsed before anything is built.

`context` (tokens in a row) and `scored_after` (tokens before the first scored one) give the rows
of all variants the same text for any K. `tune` has keys with values to try for every variant, and
`softmax` the keys of a softmax baseline; `calmkit.comparison` expands both. `trained` is the
folder of stored trainings, which several comparisons can share; by default it lies in the output
folder.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calmkit.schema import ConfigError, Source, UnknownKeyError, shown, wanted

from .experiment import TrainExperiment
from .parsing import (
    Parsed,
    layers_shared,
    option_pairs,
    parse_layers,
    preset_source,
    source_of,
)
from .variants import Entry, expand
from .yaml_text import text_of, values_of

__all__ = ["Budget", "Comparison", "Variant", "parse_comparison"]

Budget = Literal["steps", "flops", "seconds"]
_MOST_SEEDS = 10_000
_BUDGETS = ("steps", "flops", "seconds")

_DEFAULTS: dict[str, Any] = {
    "variants": {}, "grid": {}, "seeds": None, "budget": "steps", "context": None,
    "scored_after": None, "processes": 1, "threads": None, "trained": None, "tune": {},
    "softmax": None,
}  # fmt: skip
_MAPPINGS = ("grid", "tune", "softmax")
# Keys that the comparison sets for all variants.
_NOT_IN_VARIANTS = ("output", "seed", "evaluation_seed", "cache_dir", "finetune", "checkpoint")


@dataclass(frozen=True)
class Variant:
    """One model of a comparison.

    Attributes:
        name: Its name, also the name of its folder.
        experiment: Its experiment, with the first seed.
        text: Its effective config, as for `calmkit train`.
    """

    name: str
    experiment: TrainExperiment
    text: str

    def with_seed(self, seed: int) -> TrainExperiment:
        """The experiment with another training seed."""
        return dataclasses.replace(self.experiment, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """Several models under one budget.

    Attributes:
        variants: The models to compare; differences are to the first one.
        seeds: Each variant is trained once per seed.
        budget: The quantity held equal: `steps` as each config says, or the training `flops` or
            `seconds` that the first variant needs for its steps.
        processes: Runs in parallel, each on its own device or with its share of the threads.
        threads: CPU threads of each run. None: an equal share of the available threads. The
            number of threads changes the order of sums and thus their rounding.
        output: Folder for results.
        trained: Folder of finished and unfinished trainings; several comparisons may share it.
        text: The effective config as YAML; parsing it again gives the same comparison.
        tune: Keys as in options, each with the values to try for every variant.
        softmax: The keys of a softmax baseline over those of the first variant; None: without one.
    """

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    budget: Budget
    processes: int
    threads: int | None
    output: Path
    trained: Path
    text: str
    tune: Mapping[str, Any]
    softmax: Mapping[str, Any] | None


def parse_comparison(
    arguments: Sequence[str], *, preset: str = "compare", command: str = "calmkit compare"
) -> Comparison:
    """Parse command-line options on top of a preset.

    Args:
        arguments: Options such as `--config my.yaml --seeds 3 --head.width 512`. `--config` takes
            a file or a preset's name; a later one replaces `variants` and `grid` as a whole.
        preset: The preset with the default values, which override those of `base`.
        command: The command as typed, for the help text.

    Raises:
        ConfigError: If anything is wrong; names variant and key. Nothing has been built.
    """
    own: dict[str, Any] = dict(_DEFAULTS)
    sources, common = [], []
    of_variant: dict[str, list[str]] = {}
    of_options: dict[str, Any] = {}

    def add_layer(source: Source) -> None:
        own.update({k: v for k, v in source.values.items() if k in _DEFAULTS})
        kept = {k: v for k, v in source.values.items() if k not in _DEFAULTS}
        sources.append(dataclasses.replace(source, values=kept))

    for name in ("base", preset):
        add_layer(preset_source(name))
    for option, value in option_pairs(arguments):
        key, _, rest = option.removeprefix("--").partition(".")
        if option == "--config":
            add_layer(source_of(value or "", "compare"))
        elif key == "variants" and rest:
            name, _, inner = rest.partition(".")
            is_help = inner.endswith(".help") and value is None
            given = f"--{inner}" if is_help else f"--{inner}={_given(option, value)}"
            of_variant.setdefault(name, []).append(given)
        elif option == "--tune":  # --tune KEY=[VALUES]
            tuned, _, values = _given(option, value).partition("=")
            of_options[tuned] = _yaml(f"--tune {tuned}", values)
        elif key in _DEFAULTS and rest:
            raise ConfigError(
                f"{option}: {key} must be given as a whole, as --{key} VALUE"
                + (f", such as --{key} '{{{rest}: VALUE}}'." if key in _MAPPINGS else ".")
            )
        elif key in _DEFAULTS:
            own[key] = _yaml(option, _given(option, value))
        else:
            common.append(option if value is None else f"{option}={value}")
    _check_own(own)
    own["tune"] = {**own["tune"], **of_options}
    entries = expand(own["variants"], own["grid"])
    if added := _added(of_variant, entries):
        own["variants"] = {**own["variants"], **added}
        entries = expand(own["variants"], own["grid"])
    _check_names(of_variant, entries)
    with layers_shared(command):
        parsed = {
            entry.name: _parse_entry(entry, own, sources, common, of_variant, command)
            for entry in entries
        }
    _check_devices(parsed)
    return _comparison(parsed, own)


def _parse_entry(
    entry: Entry,
    own: Mapping[str, Any],
    sources: Sequence[Source],
    common: Sequence[str],
    of_variant: Mapping[str, Sequence[str]],
    command: str,
) -> Parsed:
    """The config of one model."""
    single = {name: options for name, options in of_variant.items() if name == entry.name}
    single |= {name: options for name, options in of_variant.items() if name == entry.variant}
    options = [*entry.options, *(o for given in single.values() for o in given)]
    keys = {str(key) for key in entry.overrides}
    keys |= {option.removeprefix("--").partition("=")[0].partition(".")[0] for option in options}
    for key in (*_NOT_IN_VARIANTS, *_DEFAULTS):
        if key in keys:
            raise ConfigError(
                f"variant {entry.name} must not set {key}, which holds for the whole comparison; "
                "set it beside variants" + ("; use seeds." if key == "seed" else ".")
            )
    layers = [*sources, Source(f"variant {entry.name}", entry.overrides)]
    options = [*common, *options]
    try:
        if own["context"] is not None or own["scored_after"] is not None:
            options += _position_options(
                own, parse_layers(layers, options, command=command).experiment
            )
        return parse_layers(layers, options, command=command)
    except UnknownKeyError as error:
        if error.key in keys:
            raise error.at(f"variant {entry.name}") from None
        raise UnknownKeyError(
            error.key,
            error.source,
            (*_DEFAULTS, *error.allowed),
            below=error.below,
            kind=f"a key of `{command}`",
        ) from None
    except ConfigError as error:
        raise error.at(f"variant {entry.name}") from None


def _position_options(own: Mapping[str, Any], experiment: TrainExperiment) -> list[str]:
    """Options that convert `context` and `scored_after` from tokens to chunks of this variant."""
    options = []
    for key, option in (("context", "positions"), ("scored_after", "evaluation.min_context")):
        if (tokens := own[key]) is None:
            continue
        chunks, rest = divmod(tokens, experiment.chunk_size)
        if rest:
            raise ConfigError(
                f"{key} must be a multiple of chunk_size = {experiment.chunk_size}, so that rows "
                f"hold the same text; got {tokens}."
            )
        options.append(f"--{option}={chunks}")
    return options


def _comparison(parsed: Mapping[str, Parsed], own: Mapping[str, Any]) -> Comparison:
    first = next(iter(parsed.values())).experiment
    seeds = own["seeds"]
    if seeds is None:
        seeds = [first.seed]
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    configs = {name: values_of(one.text) for name, one in parsed.items()}
    effective = list(configs.values())
    shared = {
        key: value
        for key, value in effective[0].items()
        if all(key in other and other[key] == value for other in effective)
    }
    variants = {
        name: {key: value for key, value in config.items() if key not in shared}
        for name, config in configs.items()
    }
    kept = ("budget", "processes", "threads", "trained", "tune", "softmax")
    comparison_keys = {key: own[key] for key in kept} | {"seeds": list(seeds)}
    text = text_of(comparison_keys | shared | {"variants": variants, "grid": {}})
    return Comparison(
        variants=tuple(Variant(n, one.experiment, one.text) for n, one in parsed.items()),
        seeds=seeds,
        budget=own["budget"],
        processes=own["processes"],
        threads=own["threads"],
        output=first.output,
        trained=Path(own["trained"] or first.output / "trained").expanduser(),
        text=text,
        tune=own["tune"],
        softmax=own["softmax"],
    )


def _check_own(own: dict[str, Any]) -> None:
    """Check the comparison's own keys, and replace their short forms."""
    own["tune"] = {} if own["tune"] is None else own["tune"]
    if isinstance(own["softmax"], bool):
        own["softmax"] = {} if own["softmax"] else None
    for key in ("tune", "softmax"):
        if own[key] is not None and not isinstance(own[key], Mapping):
            raise ConfigError(f"{key} must be keys and values; got {own[key]!r}.")
    seeds = own["seeds"]
    counted = isinstance(seeds, int) and 0 < seeds <= _MOST_SEEDS
    listed = list(range(seeds)) if counted else seeds
    whole = isinstance(listed, list) and all(type(s) is int and s >= 0 for s in listed)
    if seeds is not None and not (whole and listed and len(set(listed)) == len(listed)):
        raise ConfigError(
            f"seeds must be a number of seeds from 1 to {_MOST_SEEDS}, or a list of "
            f"different whole numbers; got {seeds!r}."
        )
    if own["trained"] is not None and (expected := wanted(Path, own["trained"])):
        raise ConfigError(f"trained must be {expected} to a folder; got {shown(own['trained'])}.")
    if own["budget"] not in _BUDGETS:
        raise ConfigError(
            f"budget must be steps, flops or seconds; got {own['budget']!r}.",
            wrong=str(own["budget"]),
            allowed=_BUDGETS,
        )
    for key, least in (("processes", 1), ("threads", 1), ("context", 2), ("scored_after", 1)):
        value = own[key]
        if value is None and key != "processes":
            continue
        if type(value) is not int or not least <= value < 2**31:
            raise ConfigError(f"{key} must be a whole number of at least {least}; got {value!r}.")


def _check_devices(parsed: Mapping[str, Parsed]) -> None:
    """Refuse models that are trained on several devices, or not at all."""
    for name, one in parsed.items():
        if one.experiment.dry_run:
            raise ConfigError(
                f"dry_run must be false in a comparison; got true for variant {name}. "
                "`calmkit train` takes it."
            )
        for key, only in (("devices", 1), ("num_nodes", 1), ("strategy", "auto")):
            if (value := getattr(one.experiment, key)) != only:
                raise ConfigError(
                    f"{key} must be {only} in a comparison, which trains each model on one device "
                    f"and several models at once with processes; got {value} for variant {name}."
                )


def _added(
    of_variant: Mapping[str, Sequence[str]], entries: Sequence[Entry]
) -> dict[str, dict[str, Any]]:
    """The variants that options add by naming their heads; none beside a grid alone."""
    known = _names(entries)
    return {
        name: {}
        for name, options in of_variant.items()
        if name not in known
        and any(option.startswith("--head=") for option in options)
        and all(entry.variant for entry in entries)
    }


def _check_names(of_variant: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    """Refuse options for unknown variants."""
    known = _names(entries)
    for name in of_variant:
        if name not in known:
            raise ConfigError(
                f"--variants.{name}: there is no variant {name!r}; --variants.{name}.head CLASS "
                "adds one.",
                wrong=name,
                allowed=known,
            )


def _names(entries: Sequence[Entry]) -> dict[str, None]:
    """The names that options may give: those of variants, and those with values of the grid."""
    return {name: None for entry in entries for name in (entry.variant, entry.name) if name}


def _given(option: str, value: str | None) -> str:
    if value is None:
        raise ConfigError(f"{option} must be followed by a value; got none.")
    return value


def _yaml(option: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ConfigError(f"{option} must be YAML; got {text!r}.") from None
