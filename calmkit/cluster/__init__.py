"""How the processes of one training, on one machine or several, cooperate."""

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .agreement import check_agreement as check_agreement
from .decisions import any_of as any_of
from .decisions import first_writes as first_writes
from .ending import LostProcessError as LostProcessError
from .ending import ending_together as ending_together
from .ending import part as part
