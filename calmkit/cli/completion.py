"""Shell completion: `calmkit completion` prints a script for bash and zsh.

    eval "$(calmkit completion)"        in ~/.bashrc or ~/.zshrc

The script asks `calmkit completion words ...` for each key press of Tab, which answers from source
files and presets like the help, and thus knows every key, class and preset of this version. Where
it offers nothing, the shell completes file names.
"""

from collections.abc import Mapping, Sequence

from calmkit.manual import COMPARISON_OPTIONS, Option, options_of, part_classes, preset_names

from .helping import EXPERIMENTS, Key, experiment_options, named_by, options_of_command, parts_of

__all__ = ["SCRIPT", "words"]

SCRIPT = """\
if [ -n "$ZSH_VERSION" ]; then autoload -U +X bashcompinit && bashcompinit; fi
_calmkit() {
    local IFS=$'\\n'
    COMPREPLY=($(calmkit completion words "${COMP_WORDS[@]:1:$COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _calmkit calmkit
"""


def words(given: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What the last word of a command line may become.

    Args:
        given: The words after `calmkit`; the last one is unfinished and may be empty.
        commands: All commands.
    """
    *before, last = given or [""]
    if not before:
        found = [*commands, "completion", "--help", "--version"]
    elif before[0] not in commands:
        found = []
    else:
        keys = experiment_options(before[0]) if before[0] in EXPERIMENTS else {}
        plain = [*COMPARISON_OPTIONS] if before[0] == "compare" else []
        plain += [] if keys else options_of_command(before[0])
        if before[-1].startswith("--"):
            found = _values(before[0], before[-1].removeprefix("--"), keys, plain)
        elif last.startswith("-"):
            found = _options(keys, plain, before)
        else:
            found = []
    return [word for word in found if word.startswith(last)]


def _values(command: str, key: str, keys: Mapping[str, Key], plain: Sequence[Option]) -> list[str]:
    """The values that an option takes, where they can be listed."""
    if key == "config":
        return preset_names("compare" if command == "compare" else "train")
    name = key.removesuffix(".help")
    if name in keys and (part := keys[name].part) is not None:
        return list(parts_of(name, part))
    by_name = {option.name: option for option in plain} | {n: k.option for n, k in keys.items()}
    return by_name[name].choices if name in by_name else []


def _options(keys: Mapping[str, Key], plain: Sequence[Option], before: Sequence[str]) -> list[str]:
    """All options, with the arguments of the classes that are named or the presets' own."""
    found = [f"--{option.name}" for option in plain]
    if keys:
        found += ["--config", "--config.help", "--print_config"]
    for name, key in keys.items():
        found.append(f"--{name}")
        if key.part is None:
            continue
        found.append(f"--{name}.help")
        chosen = named_by(name, before) or key.option.default or ""
        if (made := part_classes(key.part).get(chosen)) is not None:
            found += [f"--{name}.{option.name}" for option in options_of(made)[key.bound :]]
    return [*found, "--help"]
