"""A view of a module: its own modes, and everything else that of the module."""

import pytest
import torch
from torch import nn

from calmkit.nn import evaluation_view


class Parts(nn.Module):
    """Refers to a part of its own in each way that is not a child."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
        self.frozen = nn.Linear(3, 3).eval()
        self.again = (self.body,)
        self.listed = [self.body, self.frozen]
        self.missing = None
        self.method = self.body.forward
        self.register_buffer("count", torch.zeros(1))
        object.__setattr__(self, "hidden", self.body)

    def forward(self, x):
        self.seen = self.body[1].training, self.training
        return self.frozen(self.body(x))


def test_a_module_in_evaluation_mode_is_its_own_view():
    module = Parts().eval()
    assert evaluation_view(module) is module


def test_a_view_computes_in_evaluation_mode_and_leaves_the_module_as_it_is():
    module = Parts()
    before = {name: part.training for name, part in module.named_modules()}
    view, x = evaluation_view(module), torch.randn(5, 3)
    got = view(x)
    assert not any(part.training for part in view.modules())
    assert view.seen == (False, False) and not hasattr(module, "seen")
    assert {name: part.training for name, part in module.named_modules()} == before
    torch.testing.assert_close(got, module.eval()(x), rtol=0, atol=0)


def test_weights_buffers_and_hooks_are_the_modules_own():
    module = Parts()
    view = evaluation_view(module)
    assert type(view) is Parts and not isinstance(view.body, type(view))
    for kind in (nn.Module.parameters, nn.Module.buffers):
        assert all(a is b for a, b in zip(kind(view), kind(module), strict=True))
    called = []
    module.body[0].register_forward_hook(lambda part, *_: called.append(part.training))
    module.body[0].weight = nn.Parameter(torch.zeros(3, 3))
    view(torch.ones(1, 3))
    assert called == [False] and view.body[0].weight is module.body[0].weight


def test_parts_that_are_referred_to_are_views_too():
    view = evaluation_view(Parts())
    assert view.again[0] is view.listed[0] is view.hidden is view.method.__self__ is view.body
    assert view.listed[1] is view.frozen and view.missing is None


def test_a_part_that_occurs_twice_is_one_part():
    part = nn.Linear(2, 2)
    view = evaluation_view(nn.Sequential(part, nn.ReLU(), part))
    assert view[0] is view[2] is not part


@pytest.mark.parametrize("how", ["module", "method", "wrapper", "script"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_parts_must_be_put_into_evaluation_mode_first(how):
    model = nn.Sequential(nn.Dropout(0.5))
    if how == "module":
        model[0].compile(backend="eager")
    elif how == "method":
        model[0].forward = torch.compile(model[0].forward, backend="eager")
    elif how == "wrapper":
        model = nn.Sequential(torch.compile(model[0], backend="eager"))
    else:
        model = nn.Sequential(torch.jit.trace(nn.Linear(2, 2), torch.ones(2)).train())
    with pytest.raises(ValueError, match=r"compiled .* Call model\.eval\(\) first"):
        evaluation_view(model)
    assert evaluation_view(model.eval()) is model
