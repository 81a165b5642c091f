"""The copy that is sharded is compiled where the module is."""

import types

import pytest
import torch
from calm_models import energy_head, tiny

from calmkit.cluster import Placement, fully_sharded
from calmkit.devices import compiled_blocks
from calmkit.devices.compiled_blocks import blocks_of
from calmkit.private_torch import compiled_call


@pytest.mark.parametrize("when", [True, False])
def test_a_copy_is_compiled_like_the_module(when):
    fabric = types.SimpleNamespace(
        strategy=fully_sharded(), device=torch.device("cpu"), setup_module=lambda module: module
    )
    model = tiny(build_head=energy_head)
    with compiled_blocks(model, when=when, backend="eager"):
        placement = Placement(model, fabric)
        assert placement.is_sharded and placement.trained is not model
        blocks = blocks_of(placement.trained)
        assert blocks and all((compiled_call(block) is not None) == when for block in blocks)
