"""Checks of config values against the constructors that take them, with errors that name the key.

The constructors are the schema: annotations give the type of each value, and the subclasses of an
annotated class are the classes that a config may name.
"""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .classes import Argument as Argument
from .classes import arguments_of as arguments_of
from .errors import ConfigError as ConfigError
from .errors import Source as Source
from .errors import UnknownKeyError as UnknownKeyError
from .errors import explain as explain
from .layers import HelpAsked as HelpAsked
from .layers import check_layers as check_layers
from .refusals import refusals_named as refusals_named
from .refusals import refused as refused
from .values import loaded as loaded
from .values import shown as shown
from .values import wanted as wanted
