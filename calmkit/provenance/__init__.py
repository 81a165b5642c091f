"""The code that a result depends on: modules, followed through their imports, and libraries."""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .code_digest import code_changes as code_changes
from .code_digest import code_of as code_of
from .code_digest import named_in as named_in
