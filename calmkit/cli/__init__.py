"""The command line, `calmkit COMMAND`.

This is a thin shell over `calmkit.config` and the rooms that do the work, with one module per
command. User errors are detected before anything is computed and reported in a few lines:

    exit code 0    done
              1    training diverged, a run of a comparison failed, or the disk is full
              2    a mistake in the options, the config, the text or a checkpoint
              130  interrupted with Ctrl-C
"""

from .dispatch import main as main
