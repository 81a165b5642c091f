"""Every option with every kind of bad value: told in a few lines, with the key and a remedy.

Options are found in the constructors that are the schema, so that a new one cannot escape.
"""

import contextlib
import dataclasses
import importlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import forking
import pytest

import calmkit
from calmkit import cli
from calmkit.cli import account, dispatch
from calmkit.config import TrainExperiment
from calmkit.config.comparison import _DEFAULTS
from calmkit.data import TextTokenizer
from calmkit.heads import EnergyHead
from calmkit.schema.classes import arguments_of, find_class, known_classes
from calmkit.schema.values import part_of
from calmkit.training import fit

# What a mistake can look like. Some are right for some options: those are not refused.
BAD = {
    "word": "wrong", "nan": ".nan", "infinite": "-.inf", "negative": "-1", "zero": "0",
    "huge": "1000000000000000000000", "empty": "", "surrogate": "\udcff", "nul": "a\0b",
    "list": "[.nan]", "mapping": "{a: 1}", "null": "null", "bool": "true", "half": "0.5",
    "unclosed": "{", "tab": "\t", "long": "1" * 5000, "missing": "/dev/null/x", "folder": "folder",
    "empty file": "empty", "binary file": "binary", "home": "~nobody_of_that_name/x",
}  # fmt: skip
REMEDY = re.compile(
    r"must |mean: |allowed: |takes? |cannot |needs |exclude|missing: |no such|expected|"
    r"install|set it as|help"
)


@pytest.fixture
def told(run, tmp_path):
    """Run a command in a folder with files of all kinds; what it says on stderr, if refused."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)))

    def tell(*options):
        out, err = io.StringIO(), io.StringIO()
        before = len(run.calls)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(list(options))
        if code == 0:
            # No folder of results stands in the way of the next command.
            shutil.rmtree(tmp_path / "runs", ignore_errors=True)
            return None
        said = err.getvalue()
        assert code == 2, said
        assert len(run.calls) == before, "refused after the work"
        assert len(said.splitlines()) <= 12 and max(map(len, said.splitlines())) < 500, said
        assert "Traceback" not in said and REMEDY.search(said), said
        return said

    return tell


def keys(schema):
    """Every key, and those of groups of settings."""
    for name, argument in schema.items():
        yield name
        if isinstance(argument.hint, type) and dataclasses.is_dataclass(argument.hint):
            yield from (f"{name}.{inner}" for inner in arguments_of(argument.hint))


def parts(schema, prefix="", given=(), seen=()):
    """Every class of every part, each kind of part once: its options, and its arguments' keys."""
    for name, argument in schema.items():
        part, key = part_of(argument.hint), f"{prefix}{name}"
        if part is None or part.base in seen:
            continue
        seen = (*seen, part.base)
        for known in known_classes(part.base):
            made = find_class(known, part.base)
            if made is None:  # several classes of other tests have that name, none that is public
                package = importlib.import_module(part.base.__module__.rpartition(".")[0])
                assert not hasattr(package, known), known
                continue
            if made.__module__.partition(".")[0] not in ("calmkit", "torch", "lightning_fabric"):
                continue  # a part of another test that this process has run
            if not hasattr(sys.modules[made.__module__], made.__name__):
                continue  # made by Fabric around an optimiser of such a test
            arguments = arguments_of(made)
            free = dict(list(arguments.items())[part.bound :])
            options = (*given, f"--{key}={known}")
            yield from ((options, f"{key}.{inner}") for inner in free)
            yield from parts(free, f"{key}.", options, seen)


class TestEveryKey:
    def test_of_a_config(self, told):
        """Each key with some kinds in turn, and with a NUL, which none takes."""
        kinds = itertools.cycle(BAD.values())
        for key in keys(arguments_of(TrainExperiment)):
            assert told("train", f"--{key}={BAD['nul']}") is not None
            for value in itertools.islice(kinds, 5):
                said = told("train", f"--{key}={value}")
                # The folder of a cache, made on the way, is text, but too little of it.
                named = (key, key.rpartition(".")[2], "give more text")
                assert said is None or any(name in said for name in named), said

    def test_of_parts(self, told):
        """Every argument of every class, each with some kinds of bad values in turn."""
        kinds = itertools.cycle(BAD.values())
        count = refused = 0
        for options, key in parts(arguments_of(TrainExperiment)):
            for value in itertools.islice(kinds, 1):
                said = told("train", *options, f"--{key}={value}")
                count, refused = count + 1, refused + (said is not None)
                assert said is None or key.split(".")[0] in said, said
        assert count > 100 and refused > count / 2

    @pytest.mark.parametrize("command", ["evaluate", "generate", "convert", "report", "account"])
    def test_of_other_commands(self, told, command, monkeypatch):
        """None gets as far as a model: there is none of that name, or only the smallest."""
        module = importlib.import_module(f"calmkit.cli.{command}")
        if command == "account":
            monkeypatch.setattr(module, "PUBLISHED", ["calm-s"])
        for key in arguments_of(module._options):
            for value in BAD.values():
                given = {"checkpoint": "/dev/null/x"}
                if command in ("report", "account"):
                    given = {"config": "/dev/null/x"} if command == "account" else {}
                if command == "convert":
                    given["output"] = "converted"
                options = [f"--{k}={v}" for k, v in (given | {key: value}).items()]
                said = told(command, *options)
                if said is not None:
                    named = (key, "config", "checkpoint", "folder")
                    assert any(name in said for name in named), said

    @pytest.mark.parametrize("key", list(_DEFAULTS))
    def test_of_a_comparison(self, told, key):
        refused = 0
        for value in BAD.values():
            said = told("compare", "--config", "ci", "--variants={one: {}}", f"--{key}={value}")
            refused += said is not None
            assert said is None or key in said, said
        assert refused >= 2


class TestForms:
    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("seed:\t3", "is not valid YAML"),
            ("a: " + "[" * 3000, "deeply"),
            ("head: &a {init_args: *a}", "contain itself"),
            ("3: x", "3 is not a known key"),
            ("training: {steps: {a: 1}}", "training.steps must be a whole number"),
            ("training:", "training must be keys and values; got null"),
            ("head: {init_args: {rule: {class_path: EnergyScore, init_args: {alpah: 1}}}}",
             "mean: alpha"),
            ("head: {init_args: {rule: {init_args: {alpha: 1}}}}", "names no class yet"),
            ("head: {init_args: {rule: {class_path: KernelScore}}}",
             "missing: head.rule.kernel of KernelScore"),
            ("head: {class_path: FlowHead, init_args: }",
             "head.init_args must be keys and values; got null"),
            ("head: {class_path: 3}", "head.class_path must be a class; got 3"),
            ("head: {class_path: FlowHead, dict_kwargs: {a: 1}}", "head.dict_kwargs: FlowHead"),
            ("head: {class_path: MLPAutoencoder}", "head: MLPAutoencoder is not a known class"),
            ("head: calmkit.autoencoders.MLPAutoencoder", "is not a subclass of Head"),
            ("head: Head", "head: Head is abstract; name one of its subclasses"),
            ("head: os.system", "head: os.system is not a class"),
            ("head: [EnergyHead]", "head must be a class"),
            ("sampler: BatchTemperature", "mean: calmkit.sampling.BatchTemperature"),
            ("sampler: torch.nn.Linear", "sampler: torch.nn.Linear is not a Sampler"),
            ("sampler: {class_path: calmkit.sampling.BatchTemperature, "
             "init_args: {candidates: 0}}", "sampler: candidates must be at least 1"),
            ("optimizer: torch.optim.LBFGS", "must step without a closure; LBFGS"),
            ("optimizer: torch.optim.SparseAdam", "must take dense gradients; SparseAdam"),
            ("accelerator: mps", "accelerator must be a device of this machine; got 'mps'"),
            ("evaluation_data: /dev/null/x", "evaluation_data must be"),
        ],
    )  # fmt: skip
    def test_of_a_file(self, told, tmp_path, text, part):
        (tmp_path / "my.yaml").write_text(text)
        assert part in told("train", "--config", "my.yaml")

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--head.help", "FlowHaed"], "mean: FlowHead"),
            (["--seed.help"], "seed is not a part"),
            (["--foo.help"], "foo is not a known key"),
            (["--help", "head"], "--KEY.help"),
            (["--print_config=all"], "allowed: comments"),
            (["--head.rule.alpha", ".5"], "head.rule names no class yet"),
            (["--head.init_args="], "head.init_args must be keys and values"),
            (["--seed.x=3"], "seed has no keys of its own"),
            (["--=3"], "expected an option of the form"),
            (["--optimizer.betas=[0.1]"], "optimizer.betas must be a list of 2"),
            (["--head.rule=WeightedSum", "--head.rule.rules=[EnergyScor]"],
             "head.rule.rules[0]: EnergyScor is not"),
        ],
    )  # fmt: skip
    def test_of_options(self, told, options, part):
        assert part in told("train", *options)

    @pytest.mark.parametrize("name", ["x" * 300, "a/b", "..", "", ".a", "a\0", "CON", "nul.x"])
    def test_names_of_variants(self, told, tmp_path, name):
        (tmp_path / "my.yaml").write_text(json.dumps({"variants": {name: {"head": "FlowHead"}}}))
        assert "variants must" in told("compare", "--config", "ci", "--config", "my.yaml")

    def test_a_class_that_raises_anything(self, told, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "odd_heads.py").write_text(
            "from calmkit.heads import FlowHead\n"
            "class Odd(FlowHead):\n"
            "    def __init__(self, cond_size: int, latent_size: int) -> None:\n"
            "        {}['key']\n"
        )
        (tmp_path / "odd_module.py").write_text("1 / 0\n")
        said = told("train", "--head", "odd_heads.Odd")
        assert "head: KeyError: 'key' (odd_heads.py:4)" in said
        said = told("train", "--head", "odd_module.Odd")
        assert "head: odd_module.Odd cannot be imported: ZeroDivisionError" in said

    def test_help_of_a_part(self, capsys):
        assert cli.main(["train", "--head.help"]) == 0
        assert "--head.num_samples" in capsys.readouterr().out
        assert cli.main(["train", "--head.help", "FlowHead"]) == 0
        out = capsys.readouterr().out
        assert "--head.solver" in out and "latent_size" not in out
        assert cli.main(["compare", "--config", "ci", "--variants.flow.head.help"]) == 0
        assert "--head.solver" in capsys.readouterr().out
        assert cli.main(["train", "--head.rule.help"]) == 0
        assert "  KernelScore    " in (out := capsys.readouterr().out)
        assert "\narguments of" not in out
        assert cli.main(["train", "--optimizer.help", "AdamW"]) == 0
        assert "--optimizer.amsgrad" in (out := capsys.readouterr().out)
        assert "--optimizer.params" not in out


def _fit_nothing(folder):
    return fit(EnergyHead(4, 2, width=8), None, None, settings=None, seed=0)


class TestMissingExtras:
    @pytest.mark.parametrize("command", sorted({*dispatch._COMMANDS} - {"check"}))
    @pytest.mark.parametrize("library", dispatch._NEEDED)
    def test_that_every_command_needs(self, told, monkeypatch, command, library):
        monkeypatch.setitem(sys.modules, library, None)
        said = told(command)
        assert said == (
            f"calmkit {command} needs {library}; install it with pip install 'calmkit[cli]'.\n"
        )

    @pytest.mark.parametrize(
        ("library", "extra", "options"),
        [
            ("torchdiffeq", "ode", ["--head", "FlowHead", "--head.solver", "AdaptiveSolver"]),
            ("transformers", "hf", ["--backbone", "HuggingFaceBackbone",
                                    "--backbone.model_type", "llama"]),
        ],
    )  # fmt: skip
    def test_that_a_part_needs(self, told, monkeypatch, library, extra, options):
        monkeypatch.setitem(sys.modules, library, None)
        said = told("train", *options)
        assert f"needs {library}; install it with pip install 'calmkit[{extra}]'." in said

    def test_that_a_logger_needs(self, told, monkeypatch):
        def without(*args, **kwargs):
            raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.\n")

        monkeypatch.setattr("lightning_fabric.loggers.TensorBoardLogger.__init__", without)
        said = told("train", "--logger", "lightning_fabric.loggers.TensorBoardLogger")
        assert "logger: " in said and "pip install 'calmkit[tensorboard]'" in said

    @pytest.mark.parametrize(
        ("library", "call"),
        [
            ("safetensors", lambda folder: calmkit.save(EnergyHead(4, 2, width=8), folder)),
            ("safetensors", calmkit.load),
            ("tokenizers", lambda folder: TextTokenizer.train(["a"], vocab_size=300)),
            (
                "lightning_fabric",
                _fit_nothing,
            ),
        ],
    )
    def test_from_python(self, monkeypatch, tmp_path, library, call):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=rf"needs {library}; install .*'calmkit\[train\]'"):
            call(tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code", "part"),
    [
        ("train --help > /dev/full", 1, "the output: No space left on device."),
        ("train --help | true", 1, ""),
        ("train --help >&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(command, code, part):
    shell = f"set -o pipefail; {sys.executable} -m calmkit {command}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == code and part in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 1


def show_nowhere(*command):
    """As the shell's `>&-` has Python begin."""
    os.close(1)
    sys.stdout = None
    sys.exit(cli.main([*command]))


def show_in_ascii(text):
    """As PYTHONIOENCODING=ascii has Python begin."""
    sys.stdout.reconfigure(encoding="ascii", errors="strict")
    account.run = lambda options: print(text)
    sys.exit(cli.main(["account"]))


@pytest.mark.parametrize(
    ("work", "given", "said"),
    [
        (show_nowhere, ("account", "--preset=calm-m"), ""),
        (show_in_ascii, ("\u2603",), "\\u2603\n"),
    ],
)
def test_an_output_that_cannot_show_all(tmp_path, work, given, said):
    process = forking.start(work, *given, output=tmp_path / "said")
    assert forking.finished(process) == 0
    assert (tmp_path / "said").read_text() == said
