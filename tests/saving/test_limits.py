"""A description of a few bytes does not ask for more than its file could fill."""

import time

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from part_strategies import KINDS, finals, parts
from torch.utils._python_dispatch import TorchDispatchMode

from calmkit.backbones import HuggingFaceBackbone
from calmkit.heads import EnergyHead, Head
from calmkit.models import InputEncoder
from calmkit.saving import CannotBeSavedError, SavedModelError, load, save
from calmkit.saving.files import ModelContent, write_model_file
from calmkit.saving.limits import BuildingLimit, check_numbers
from calmkit.scoring import EnergyScore, WeightedSum


class Largest(TorchDispatchMode):
    """Keeps how large the largest tensor is that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def part(name, **arguments):
    return {"class_path": f"calmkit.{name}", "init_args": arguments}


def head(**arguments):
    return part("heads.EnergyHead", **{"cond_size": 3, "latent_size": 2, **arguments})


SCHEDULE = part("heads.LinearSchedule", length=10**9)
DEEP = {"rule": {"class_path": "calmkit.scoring.EnergyScore", "init_args": {}}}
for _ in range(60):
    DEEP = {"rule": part("scoring.SpreadWeighted", **DEEP)}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (head(width=10**5), "must request tensors that the file can fill; it has 1 numbers"),
        (head(width=1, depth=10**7), "must request tensors that the file can fill"),
        (head(latent_size=10**9), "a whole number must be at most 16777216"),
        (head(depth=10**30), "one of 31 digits"),
        (head(width=-4), "EnergyHead"),
        (head(width=[1]), "EnergyHead"),
        (part("heads.DiffusionHead", cond_size=3, latent_size=2, width=2, schedule=SCHEDULE),
         "a whole number must be at most"),
        (head(**DEEP), "nested more than 100 deep"),
        ({"tensor": [[[1]]], "dtype": "float32"}, "must be a module; got a Tensor"),
        ({"tensor": "x", "dtype": "float32"}, "cannot be built"),
        ({"dtype": "os"}, "must be the name of one of torch's"),
        ({"returns": head()}, "must be a module; got a function"),
        ([], "must be a module; got a list"),
        (None, "must be a module; got a NoneType"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_small_file_asks_for_little(tmp_path, description, said):
    """Refused at once, and by name; no large tensor is made on the way."""
    content = ModelContent(description, "")
    write_model_file(tmp_path / "model.safetensors", content, {"x": torch.zeros(1)})
    begun = time.process_time()
    with Largest() as largest, pytest.raises(SavedModelError, match=said):
        load(tmp_path, Head)
    assert largest.numbers <= 2**24
    assert time.process_time() - begun < 10


def test_a_schedule_is_counted_by_its_length(monkeypatch):
    monkeypatch.setattr("calmkit.saving.limits._MORE_NUMBERS", 10**6)
    with BuildingLimit({}, "file"), pytest.raises(SavedModelError, match="file: the description"):
        torch.linspace(0, 1, 10**7)
    with BuildingLimit({}, "file"), pytest.raises(SavedModelError, match="file: the description"):
        torch.arange(10**7)


def test_the_bound_of_whole_numbers_grows_with_the_file():
    check_numbers({"mapping": [2**24, -(2**24), True, 1e300, "9" * 99]})
    check_numbers([2**26], 2**26)
    for wrong in (2**24 + 1, [[-(2**25)]], {"a": 10**4000}):
        with pytest.raises(SavedModelError, match="a whole number must be at most 16777216"):
            check_numbers(wrong)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    rule = EnergyScore()
    for _ in range(60):
        rule = WeightedSum((rule, EnergyScore()))
    with pytest.raises(CannotBeSavedError, match="nested more than 100 deep"):
        save(EnergyHead(3, 2, width=4, rule=rule), tmp_path)
    with pytest.raises(CannotBeSavedError, match="a whole number must be at most"):
        save(EnergyHead(3, 2, width=4, num_samples=10**8), tmp_path)
    assert not any(tmp_path.iterdir())


MODULES = [
    kind
    for base in KINDS
    for kind in finals(base)
    if issubclass(kind, torch.nn.Module)
    and not issubclass(kind, InputEncoder)  # they refer to an autoencoder of the model
    and kind is not HuggingFaceBackbone  # makes a vocabulary, and drops it
]


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(
    max_examples=2,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_part_stays_far_below_the_limits(tmp_path, monkeypatch, kind, data):
    """With a hundredth of what is allowed beside the file's own numbers, and half of the rest."""
    made = data.draw(parts(kind))
    save(made, tmp_path)
    monkeypatch.setattr("calmkit.saving.limits._TIMES", 4)
    monkeypatch.setattr("calmkit.saving.limits._MORE_TENSORS", 100)
    monkeypatch.setattr("calmkit.saving.limits._MORE_NUMBERS", 2**20)
    assert type(load(tmp_path, kind, trust=("part_strategies",))) is type(made)
