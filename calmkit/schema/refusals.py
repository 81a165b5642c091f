"""Find the key of the part whose constructor refused its arguments.

The parser builds nested parts deep inside its own calls and wraps their exceptions. If it fails,
this module builds the parts again, innermost first, until one of them raises.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from calmkit.extras import with_remedy

from .classes import Argument, arguments_of, find_class
from .errors import ConfigError
from .values import part_of

__all__ = ["refusals_named", "refused"]


@contextlib.contextmanager
def refusals_named(schema: Mapping[str, Argument], values: Mapping[str, Any]) -> Iterator[None]:
    """Name the key of a part or setting that cannot be built from these values.

    Args:
        schema: The keys.
        values: Their parsed values, with classes as dotted paths.

    Raises:
        ConfigError: If a part refuses its arguments; its message, prefixed with its key.
    """
    try:
        yield
    except Exception:
        for key, argument in schema.items():
            _build(key, argument.hint, values.get(key))
        raise


def refused(key: str, error: Exception) -> ConfigError:
    """Convert a constructor's exception into a `ConfigError` that names the key.

    Args:
        key: Key of the part.
        error: The exception. For an ImportError the message says what to install; for an
            unexpected type of exception it gives the type and the line that raised it.
    """
    if isinstance(error, ConfigError):
        return error
    # PyTorch adds a trace of its own.
    message = str(error).strip().partition("\nException raised from")[0] or "no reason was given"
    if isinstance(error, ImportError):
        message = with_remedy(message)
    elif not isinstance(error, TypeError | ValueError):
        message = f"{type(error).__name__}: {message}"
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            message += f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    if isinstance(error, AttributeError) and isinstance(error.obj, nn.Module):
        message += f"\n  Does {type(error.obj).__name__}.__init__ call super().__init__ first?"
    if not any(word in message for word in ("must", "install", "cannot")):
        message += f"\n  --{key}.help lists its arguments."
    return ConfigError(f"{key}: {message}")


def _build(key: str, hint: Any, value: Any) -> Any:
    """Build an object from parsed values; for a factory, build only its arguments."""
    if isinstance(value, list | tuple):
        return [_build(key, Any, one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and "class_path" not in value:
        try:
            return hint(**value)
        except Exception as error:
            raise ConfigError(f"{key}.{error}") from None
    if not isinstance(value.get("class_path"), str):
        return value
    made = find_class(value["class_path"], None)
    if made is None:
        return value
    arguments = arguments_of(made)
    built = {
        name: _build(f"{key}.{name}", arguments[name].hint if name in arguments else Any, one)
        for name, one in (value.get("init_args") or {}).items()
    }
    if (part := part_of(hint)) is not None and part.is_factory:
        return None
    try:
        return made(**built)
    except Exception as error:
        raise refused(key, error) from None
