"""A cache of another kind is refused by name, though it offers all that a cache must."""

import pytest
import torch
from backbone_instances import BACKBONES

from calmkit.backbones import Cache


class Foreign:
    lengths = torch.zeros(1, dtype=torch.long)

    def select(self, rows, lengths):
        return self


@pytest.mark.parametrize("name", BACKBONES)
def test_only_its_own_kind_of_cache_is_taken(name):
    assert isinstance(Foreign(), Cache)
    backbone = BACKBONES[name]()
    own = type(backbone.new_cache(1, 1)).__name__
    with pytest.raises(ValueError, match=rf"cache must be a {own}.* got Foreign"):
        backbone(torch.zeros(1, 1, 8), cache=Foreign())
