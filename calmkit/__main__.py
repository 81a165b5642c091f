"""`python -m calmkit`: the command line."""

import sys

from calmkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
