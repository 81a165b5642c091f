"""The command `calmkit`: compare, train, evaluate, generate, convert, account, report.

A thin shell over `calmkit.config` (what to do) and `calmkit.comparison` (doing it): a module for
each command. All that a user can get wrong is checked before anything is computed, and told in a
few lines:

    exit code 0    done
              1    training diverged, a run of a comparison failed, or the disk is full
              2    a mistake in the options, the config, the text or a checkpoint
              130  interrupted with Ctrl-C
"""

from .dispatch import main as main
