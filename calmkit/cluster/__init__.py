"""How the processes of one training, on one machine or several, cooperate."""

from .sharding import fully_sharded as fully_sharded

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .agreement import check_agreement as check_agreement
from .decisions import any_of as any_of
from .decisions import first_writes as first_writes
from .ending import LostProcessError as LostProcessError
from .ending import end_exchange as end_exchange
from .ending import ending_together as ending_together
from .launchers import launched as launched
from .micro_batches import MicroBatches as MicroBatches
from .micro_batches import share_of as share_of
from .peers import Peers as Peers
from .placement import Placement as Placement
from .sharding import copy_whole as copy_whole
from .sharding import distribute_like as distribute_like
from .sharding import local as local
from .sharding import units_of as units_of
from .sharding import whole as whole
from .step_means import StepMeans as StepMeans
from .step_means import weighted as weighted
