"""What counts as the code behind a number, and what does not."""

import importlib
import sys

import pytest
import torch
from own_code import Files, forget

import calmkit
from calmkit.backbones import HuggingFaceBackbone, TransformerBackbone
from calmkit.comparison.planning import prepare_all
from calmkit.config import parse, parse_comparison
from calmkit.experiments.keys import code_of_result, code_of_training
from calmkit.experiments.trainer import Trainer
from calmkit.heads import AdaptiveSolver, EnergyHead, FlowHead
from calmkit.provenance.code_digest import code_changes, code_of, named_in
from calmkit.scoring import EnergyScore
from calmkit.training import MatrixDecayAdamW


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Files(tmp_path)
    forget()


class TestOwnCode:
    def test_what_is_said_counts_and_how_it_is_explained_does_not(self, files):
        before = files.write(mine="SCALE = 1.0\ndef f(x):\n    return x * SCALE\n").code()
        explained = (
            '"""A module."""\n# of one\nSCALE = (\n    1.0\n)\n\ndef f(x):\n'
            '    """Scale."""\n    return x * SCALE  # so\n'
        )
        assert files.write(mine=explained).code() == before
        after = files.write(mine="SCALE = 2.0\ndef f(x):\n    return x * SCALE\n").code()
        assert code_changes(before, after) == ["mine has changed"]

    @pytest.mark.parametrize(
        "statement",
        [
            "import helper", "from helper import SCALE", "from helper import *",
            "def f():\n    from helper import SCALE", "class A:\n    import helper as h",
            "try:\n    import helper\nexcept ImportError:\n    pass",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import helper", "import other",
        ],
    )  # fmt: skip
    def test_whatever_is_imported_counts(self, files, statement):
        files.write(mine=statement, other="import helper", helper="SCALE = 1.0")
        before = files.code()
        after = files.write(helper="SCALE = 2.0").code()
        assert code_changes(before, after) == ["helper has changed"]

    def test_imports_for_type_checkers_alone_do_not(self, files):
        text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper\n"
        assert files.write(mine=text, helper="").reached() == {"mine"}

    @pytest.mark.parametrize(
        ("statement", "more"),
        [
            ("from . import deep", {"pack.deep"}),
            ("from .deep import X", {"pack.deep"}),
            ("from .sub.leaf import X", {"pack.sub", "pack.sub.leaf"}),
            ("from pack.sub import leaf", {"pack.sub", "pack.sub.leaf"}),
            ("from .sub import name", {"pack.sub"}),
        ],
    )
    def test_relative_imports_and_packages_around(self, files, statement, more):
        files.write(
            pack__init="import patch", pack__heads=statement, pack__deep="X = 1", patch="",
            pack__sub__init="name = 1", pack__sub__leaf="X = 1",
        )  # fmt: skip
        assert files.reached("pack.heads") == {"pack", "pack.heads", "patch", *more}

    def test_a_module_deep_in_a_package_sees_its_parents(self, files):
        files.write(
            pack__init="", pack__deep="X = 1", pack__sub__init="",
            pack__sub__leaf="from ..deep import X",
        )  # fmt: skip
        assert files.reached("pack.sub.leaf") == {
            "pack", "pack.deep", "pack.sub", "pack.sub.leaf",
        }  # fmt: skip

    def test_circles_and_missing_modules_end(self, files):
        files.write(mine="import helper\nimport not_installed_anywhere", helper="import mine")
        assert files.reached() == {"mine", "helper"}

    def test_folders_without_init(self, files):
        files.write(space__leaf="X = 1", mine="from space import leaf")
        assert files.reached() == {"mine", "space.leaf"}

    def test_a_module_without_source_is_known_by_its_file(self, files):
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        compiled = files.folder / f"fast{suffix}"
        compiled.write_bytes(b"one")
        before = files.write(mine="import fast, zlib, sys").code()
        assert "zlib" not in before
        compiled.write_bytes(b"two")
        assert code_changes(before, files.code()) == ["fast has changed"]


class TestLibraries:
    def test_versions_of_what_computes_and_not_of_what_checks(self, files):
        found = files.write(mine="import torch.nn, jaxtyping, json").code()
        assert found["torch"].startswith(f"version {torch.__version__} ")
        assert set(found) == {"mine", "python", "torch"}

    def test_an_installed_package_is_known_by_version_and_checksums(self, files, monkeypatch):
        installed = files.folder / "lib" / "site-packages"
        monkeypatch.syspath_prepend(str(installed))
        facts = installed / "numbers_of_mine-1.0.dist-info"
        facts.mkdir(parents=True)
        (installed / "numbers_of_mine.py").write_text("import helper")
        files.write(mine="import numbers_of_mine", helper="")

        def install(version, checksum):
            (facts / "METADATA").write_text(f"Name: numbers_of_mine\nVersion: {version}\n")
            (facts / "top_level.txt").write_text("numbers_of_mine\n")
            (facts / "RECORD").write_text(
                f"numbers_of_mine.py,sha256={checksum},9\nnumbers_of_mine-1.0.dist-info/RECORD,,\n"
            )
            return files.code(installed=True)

        first = install("1.0", "abc")
        assert set(first) == {"mine", "numbers_of_mine", "python"}
        assert code_changes(first, install("1.1", "abc")) == [
            "numbers_of_mine changed from 1.0 to 1.1"
        ]
        again = ["numbers_of_mine 1.0 was reinstalled"]
        assert code_changes(first, install("1.0", "xyz")) == again
        assert code_changes(first, install("1.0", "abc")) == []

    def test_what_calmkit_imports_in_a_class_counts_where_the_class_is_used(self, files):
        assert "torchdiffeq" not in code_of([], named=[FlowHead])
        assert "torchdiffeq" in code_of([], named=[FlowHead, AdaptiveSolver])
        assert "torchdiffeq" in files.write(mine="from calmkit.heads import AdaptiveSolver").code()
        assert "transformers" not in code_of([], named=[TransformerBackbone])
        mine = type("Mine", (HuggingFaceBackbone,), {"__module__": "calmkit.heads.base"})
        assert "transformers" in code_of([], named=[mine])
        assert ("xformers" in code_of([], named=[TransformerBackbone])) == (
            torch.cuda.is_available()
        )


class TestNames:
    def test_classes_and_functions_at_any_depth(self):
        config = {
            "head": {
                "class_path": "calmkit.heads.EnergyHead",
                "init_args": {"rules": [{"class_path": "calmkit.scoring.EnergyScore"}], "n": 3},
            },
            "optimizer": "calmkit.training.MatrixDecayAdamW",
            "input": "tokens",
            "data": "calmkit.txt",
            "name": "calmkit.heads",
            "other": "calmkit.heads.NoSuchHead",
            "initialise": "calmkit.nn.scaled_normal_",
        }
        assert set(named_in(config)) == {
            EnergyHead, EnergyScore, MatrixDecayAdamW, calmkit.nn.scaled_normal_,
        }  # fmt: skip

    def test_changes_are_told_one_s_own_code_first(self):
        before = {"a": "1", "mine": "2", "torch": "version 2.12.0 aa", "x": "version 1.0 bb"}
        now = {"b": "1", "mine": "3", "torch": "version 2.13.0 cc", "x": "version 1.0 bb"}
        assert code_changes(before, now) == [
            "a is used no longer", "b is used now", "mine has changed",
            "torch changed from 2.12.0 to 2.13.0",
        ]  # fmt: skip


OPTIONS = ["--config=ci", "--autoencoder_training.steps=2", "--training.steps=2",
           "--evaluation.draws=2", "--sample_tokens=4",
           "--autoencoder_training.warmup_steps=0", "--training.warmup_steps=0",
           "--evaluation.rows=4", "--evaluation.bootstrap=10"]  # fmt: skip


class TestCalmkit:
    def test_only_what_decides_a_training_is_in_its_code(self):
        text = parse(["--head=EnergyHead"], command="calmkit train").text
        training, result = set(code_of_training(text)), set(code_of_result(text))
        assert training < result
        rooms = {name.split(".")[1] for name in training if name.startswith("calmkit.")}
        assert not rooms & {"cli", "metrics", "accounting", "interop", "saving"}
        shown = {"calmkit.reports.html", "calmkit.reports.report_files", "calmkit.cli"}
        assert not {name for name in result if any(name.startswith(one) for one in shown)}
        assert "calmkit.heads.energy" in training and "calmkit.heads.flow" not in result
        assert "calmkit.metrics.brier" in result

    def test_all_code_that_runs_is_in_it(self, float32, tmp_path):
        """What a training and a measurement really call, seen by the interpreter."""
        variants = ["--variants", "{mix: {head: MixtureHead}, flow: {head: FlowHead}}"]
        solver = "--variants.flow.head.solver"
        variants += [f"{solver}=MidpointSolver", f"{solver}.steps=2"]
        comparison = parse_comparison([*OPTIONS, *variants, f"--output={tmp_path}"])
        prepared = prepare_all(comparison)
        for variant in comparison.variants:
            trainer = Trainer(variant.experiment, prepared.corpora[variant.name], Quiet())
            trainer.validation_loss = lambda model: 0.0
            trainer.rough_brier = lambda model: Zero
            trainer.accuracy = lambda autoencoder: 0.0
            with Calls() as trained:
                autoencoder = trainer.train_autoencoder(None)
                model, training = trainer.train_model("model", autoencoder, None)
            with Calls() as measured:
                trainer.measure(model, training)
            shell = {
                "calmkit.provenance.code_digest", "calmkit.config.experiment",
                "calmkit.training.out_of_memory",
            }  # fmt: skip
            assert trained.modules - shell <= set(code_of_training(variant.text))
            assert measured.modules - shell <= set(code_of_result(variant.text))
            assert len(trained.modules) > 30


class Zero:
    value = 0.0


class Quiet:
    """A display of the test's own: calmkit's would be among the calls."""

    def note(self, text):
        pass

    def track(self, label):
        return lambda progress: None


class Calls:
    """The modules of calmkit whose functions are called inside, but not those of imports."""

    def __enter__(self):
        self.modules = set()
        self._seen = set()
        sys.setprofile(self._look)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _look(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or code in self._seen:
            return
        self._seen.add(code)
        name = frame.f_globals.get("__name__", "")
        if name.startswith("calmkit.") and code.co_name != "<module>":
            self.modules.add(name)
