"""Tests for modes: off inside, and each part as it was before, also after an error."""

import pytest
from torch import nn

from calmkit.nn import evaluation_mode


@pytest.mark.parametrize("fails", [False, True])
def test_every_part_is_given_back_its_own_mode(fails):
    frozen, trained = nn.Linear(1, 1).eval(), nn.Dropout()
    module = nn.Sequential(frozen, trained)
    with pytest.raises(KeyError) if fails else evaluation_mode(module):
        with evaluation_mode(module):
            assert not any(part.training for part in module.modules())
            if fails:
                raise KeyError
    assert module.training and trained.training and not frozen.training
