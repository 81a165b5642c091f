"""Loading runs no code that was not allowed, and reaches nothing but parts."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from calmkit.heads import EnergyHead, Head
from calmkit.recording import Recorded, dotted_path, recorded
from calmkit.saving import CannotBeSavedError, SavedModelError, UntrustedCodeError, load, save
from calmkit.saving.describing import describe
from calmkit.saving.rebuilding import rebuild
from calmkit.saving.trust import ACTIVATIONS, find
from calmkit.scoring import EnergyScore

MINE = """
from pathlib import Path
Path("was_imported").touch()
import os
from calmkit.heads import EnergyHead
class MyHead(EnergyHead):
    def __init__(self, cond_size, latent_size, *, activation, dtype, nested):
        super().__init__(cond_size, latent_size, width=4)
        self.activation = activation
"""


# A process in which only the libraries of the extra `cli` can be imported.
WITHOUT_EXTRAS = """
import sys
from calmkit.extras import EXTRAS
for library, extra in EXTRAS.items():
    if extra not in ("cli", "train", "data"):
        sys.modules[library] = None
import calmkit
from calmkit.heads import EnergyHead, Head
calmkit.save(EnergyHead(3, 2, width=4), "saved")
assert isinstance(calmkit.load("saved", Head), EnergyHead)
assert "torch._dynamo" not in sys.modules
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A head from outside, saved; its module is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heads_of_others.py").write_text(MINE)
    module = __import__("heads_of_others")
    head = module.MyHead(
        3, 2, activation=torch.nn.functional.cross_entropy, dtype=torch.bfloat16,
        nested={"class_path": ("text", [1, 2.5, None])},
    )  # fmt: skip
    save(head, tmp_path / "saved")
    del sys.modules["heads_of_others"]
    (tmp_path / "was_imported").unlink()
    yield tmp_path
    sys.modules.pop("heads_of_others", None)


@pytest.mark.parametrize("trust", [(), ("torch",), ("heads_of_other",), ("heads_of_others.x",)])
def test_code_from_outside_is_refused_before_it_is_imported(mine, trust):
    with pytest.raises(UntrustedCodeError, match=r"needs heads_of_others\.MyHead.*--trust heads"):
        load(mine / "saved", Head, trust=trust)
    assert not (mine / "was_imported").exists() and "heads_of_others" not in sys.modules


def test_each_package_has_to_be_named(mine):
    with pytest.raises(UntrustedCodeError, match=r"needs torch\.nn\.functional\.cross_entropy, "):
        load(mine / "saved", Head, trust=("heads_of_others",))
    assert not (mine / "was_imported").exists()


def test_an_activation_needs_no_trust_in_torch():
    silu = {"name": "torch.nn.functional.silu"}
    assert rebuild({"mapping": {"x": silu}}) == {"x": torch.nn.functional.silu}
    for name in ACTIVATIONS:
        function = rebuild({"name": name})
        assert function(torch.zeros(3)).shape == (3,)
        assert dotted_path(function) in ACTIVATIONS  # as a saved model gives it


def test_what_is_allowed_comes_back_with_all_its_arguments(mine):
    head = load(mine / "saved", Head, trust=("heads_of_others", "torch"))
    assert type(head).__name__ == "MyHead"
    assert head.activation is torch.nn.functional.cross_entropy
    arguments = head._construction.arguments
    assert arguments["dtype"] is torch.bfloat16
    assert arguments["nested"] == {"class_path": ("text", [1, 2.5, None])}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("calmkit.interop.CheckpointFormatError", "must be a public part"),
        *(
            (f"calmkit.{name}", "must be a public part of calmkit")
            for name in (
                "cli.main",
                "cli.dispatch.os",
                "cli.dispatch.os.system",
                "saving.saving.os.system",
                "config.building.Path",
                "config.parsing.os.system",
                "heads.NoHead",
                "heads.torch",
                "heads.energy.torch.hub.load",
                "heads.energy._keep",
                "recording.recorded",
                "interop.load_published_calm",
                "heads.EnergyHead.load_state_dict",
            )
        ),
        ("torch.nn.functional.silu", "must be a part"),
        ("calmkit", "whose code would run here"),
        ("calmkitten.Head", "whose code would run here"),
        ("os.system", "whose code would run here"),
    ],
)
def test_a_description_reaches_nothing_but_parts(path, text):
    description = {"class_path": path, "init_args": {}}
    with pytest.raises(SavedModelError, match=text):
        inside = {"returns": [{"mapping": {"x": {"tuple": [description]}}}]}
        arguments = {"cond_size": 3, "latent_size": 2, "head": inside}
        rebuild({"class_path": "calmkit.heads.GuidedHead", "init_args": arguments})


def test_saving_and_loading_need_no_library_of_another_extra_and_no_compiler(tmp_path):
    """PyTorch's compiler would be a large part of the time that a short command takes."""
    command = [sys.executable, "-c", WITHOUT_EXTRAS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("heads_of_others.os.system", "must be importable"),
        ("heads_of_others.os", "that a trusted package defines itself; it is none"),
        ("heads_of_others.Path", "it is from pathlib"),
        ("heads_of_others.EnergyHead", r"it is from calmkit\.heads\.energy"),
        ("heads_of_others.touch", "it is from pathlib"),
        ("heads_of_others.value", "it is none"),
        ("heads_of_others.nothing", "must be importable"),
    ],
)
def test_trust_reaches_what_a_package_defines(mine, path, text):
    with (mine / "heads_of_others.py").open("a") as file:
        file.write("touch = Path.touch\nvalue = 3\n")
    with pytest.raises(SavedModelError, match=text):
        find(path, ("heads_of_others",))
    assert find("heads_of_others.MyHead", ("heads_of_others",)).__name__ == "MyHead"


@pytest.mark.parametrize(
    "wrong", [{}, {"class_path": 3, "init_args": {}}, {"tuple": 3}, {"same": "nowhere"}]
)
def test_a_description_of_another_form_is_refused(wrong):
    with pytest.raises(SavedModelError, match=r"must be as `calmkit\.save` writes it"):
        rebuild(wrong)


def test_a_constructors_refusal_names_its_class():
    wrong = {"class_path": "calmkit.heads.EnergyHead", "init_args": {"cond_size": 0}}
    with pytest.raises(SavedModelError, match=r"calmkit\.heads\.EnergyHead: .*latent_size"):
        rebuild(wrong)
    wrong["init_args"]["latent_size"] = 2
    with pytest.raises(SavedModelError, match="EnergyHead: cond_size must be at least 1"):
        rebuild(wrong)


def test_another_format_is_refused(tmp_path):
    header = {"calmkit": json.dumps({"format": 9, "version": "7.0", "model": {}, "tokenizer": ""})}
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata=header)
    with pytest.raises(
        SavedModelError, match=r"must have format 2.*got 9, .* calmkit 7\.0.*Read it"
    ):
        load(tmp_path)


class TestWhatCannotBeSaved:
    def test_a_class_without_a_name(self, tmp_path):
        class Local(EnergyHead):
            def __init__(self, cond_size, latent_size):
                super().__init__(cond_size, latent_size, width=4)

        with pytest.raises(CannotBeSavedError, match="Local must be of a class or function that"):
            save(Local(3, 2), tmp_path)
        assert not any(tmp_path.iterdir())

    def test_a_part_that_keeps_nothing(self, tmp_path):
        with pytest.raises(CannotBeSavedError, match=r"derive from calmkit\.recording\.Recorded"):
            save(torch.nn.Linear(2, 2), tmp_path)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda head: setattr(head, "noise_size", 5), r"EnergyHead\.noise_size must be as"),
            (lambda head: setattr(head, "rule", None), r"EnergyHead\.rule must be as .* is None"),
            (lambda head: setattr(head, "rule", EnergyScore(0.5)), r"EnergyHead\.rule must be as"),
            (
                lambda head: setattr(head, "output", torch.nn.Identity()),
                "output must be as .* it is a Identity, and would be",
            ),
            (
                lambda head: setattr(head, "extra", torch.nn.Linear(1, 1)),
                "extra must be as .* it is a Linear, and would be NoneType",
            ),
            (lambda head: delattr(head, "output"), r"output\S* must be as .* missing"),
            (lambda head: head.register_buffer("table", torch.zeros(2)), "table must be as"),
        ],
    )
    def test_what_was_changed_after_its_construction(self, tmp_path, change, text):
        head = EnergyHead(3, 2, width=4)
        change(head)
        with pytest.raises(CannotBeSavedError, match=text):
            save(head, tmp_path)
        assert not any(tmp_path.iterdir())


class Plain(Recorded):
    def __init__(self, *sizes, table=None, **more):
        self.sizes, self.table, self.more = sizes, table, more


@recorded
def made_later(size, *, scale=2.0):
    part = Plain()
    part.sizes = (size * scale,)
    return part


class TestRecording:
    def test_the_outermost_constructor_counts(self):
        class Child(Plain):
            def __init__(self, size):
                super().__init__(table=size)

        assert Child(3)._construction.arguments == {"size": 3}
        assert Child(3)._construction.maker is Child

    def test_a_part_made_in_another_way_has_none(self, tmp_path):
        """As `HuggingFaceBackbone.from_model` does."""
        head = EnergyHead.__new__(EnergyHead)
        Head.__init__(head, 3, 2)
        with pytest.raises(CannotBeSavedError, match="must be made by its class's constructor"):
            save(head, tmp_path)

    def test_keywords_are_kept_by_their_names(self):
        part = Plain(table=[1], other="x")
        assert part._construction.arguments == {"table": [1], "other": "x"}
        again = rebuild(describe(part), trust=(__name__,))
        assert (again.table, again.more) == ([1], {"other": "x"})

    def test_a_function_may_stand_for_its_part(self):
        part = rebuild(describe(made_later(3)), trust=(__name__,))
        assert part.sizes == (6.0,)
        assert describe(part)["init_args"] == {"size": 3, "scale": 2.0}

    def test_a_wrong_argument_is_pythons_own_error(self):
        with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword"):
            EnergyHead(3, 2, widht=4)

    def test_copies_and_pickles_keep_it(self):
        head = EnergyHead(3, 2, width=4)
        for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
            assert describe(other) == describe(head)

    @pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object()])
    def test_other_values_are_refused_by_name(self, value):
        with pytest.raises(CannotBeSavedError, match=r"Plain\.table must"):
            describe(Plain(table=value))
