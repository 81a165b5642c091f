"""What source files say about options and parts, read without importing them.

The help of a command is words: names, types, defaults and docstrings of constructors. Importing
those constructors takes seconds, most of them PyTorch's. This room parses their files instead, so
that help and completions are there at once. It imports nothing of calmkit but light modules.
"""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .comparison_options import COMPARISON_OPTIONS as COMPARISON_OPTIONS
from .listed_parts import arguments_page as arguments_page
from .listed_parts import part_classes as part_classes
from .listed_parts import parts_page as parts_page
from .pages import page as page
from .pages import two_columns as two_columns
from .preset_files import PRESETS as PRESETS
from .preset_files import preset_defaults as preset_defaults
from .preset_files import preset_names as preset_names
from .preset_files import preset_purpose as preset_purpose
from .short_names import LOGGERS as LOGGERS
from .source_text import Definition as Definition
from .source_text import find as find
from .source_text import modules_defining as modules_defining
from .source_text import one_line as one_line
from .stated_options import Option as Option
from .stated_options import description_of as description_of
from .stated_options import number_bound as number_bound
from .stated_options import options_of as options_of
from .stated_options import part_of_hint as part_of_hint
