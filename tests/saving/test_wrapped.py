"""A model inside of a wrapper is not saved, and the message says how it can be."""

import pytest
import torch
from torch import nn

import calmkit
from calmkit.heads import EnergyHead
from calmkit.saving import CannotBeSavedError


def head():
    return EnergyHead(4, 2, width=8)


def _compiled(module):
    return torch.compile(module, backend="eager")


def test_compiled_in_place_is_saved(tmp_path):
    model = head()
    model.compile(backend="eager")
    calmkit.save(model, tmp_path)
    loaded = calmkit.load(tmp_path, EnergyHead)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrap", "remedy"),
    [(_compiled, r"by model\.compile\(\)"), (nn.DataParallel, r"Save its \.module")],
)
def test_what_is_around_a_model_is_named(tmp_path, wrap, remedy):
    with pytest.raises(CannotBeSavedError, match=remedy):
        calmkit.save(wrap(head()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_part_is_named(tmp_path):
    model = nn.Sequential(_compiled(head()))
    with pytest.raises(CannotBeSavedError, match=r"Sequential\.0 must be the module itself"):
        calmkit.save(model, tmp_path)
