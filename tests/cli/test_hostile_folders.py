"""Whatever a folder says, no command runs code of it, nor code that it names.

A module beside the folder tells when it is imported, and a shell command leaves a file: neither
may happen, by any command, wherever in the folder and in whatever form they are named.
"""

import contextlib
import importlib
import itertools
import json
import os
import sys
from pathlib import Path

import forking
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from calmkit import cli, config
from calmkit.experiments import model_folder
from calmkit.files import replacing
from calmkit.saving.files import read_model_file, write_model_file

EVIL = """
import os
from pathlib import Path
Path({trace!r}).touch()
from calmkit.heads import EnergyHead, GaussianNoise
from calmkit.sampling import PlainSampler
class H(EnergyHead): pass
class N(GaussianNoise): pass
class S(PlainSampler): pass
def go(*args, **keywords): os.system("touch {trace}")
"""
RUN = {"class_path": "lightning_fabric.loggers.csv_logs.os.system",
       "init_args": {"command": "touch trace"}}  # fmt: skip


@pytest.fixture
def folder(run, trained, tmp_path):
    """A saved model in `model`, beside a module and configs that must not be read."""
    (tmp_path / "evilmod.py").write_text(EVIL.format(trace=str(tmp_path / "trace")))
    for name in ("evil", "evil.yaml", "model/evil.yaml"):
        (tmp_path / name).write_text("class_path: evilmod.H\ninit_args: {}\nhead: evilmod.H\n")
    sys.path.append(str(tmp_path))
    yield trained
    sys.path.remove(str(tmp_path))
    sys.modules.pop("evilmod", None)


def nothing_ran(folder):
    return "evilmod" not in sys.modules and not (folder.parent / "trace").exists()


def change(folder, **values):
    file = folder / "config.yaml"
    if not (keep := folder.parent / "whole.yaml").exists():
        keep.write_text(file.read_text())
    file.write_text(yaml.safe_dump({**yaml.safe_load(keep.read_text()), **values}))


def finetune(*options):
    Path("pairs.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 9)
    return cli.main([
        "train", "--checkpoint", "model", "--finetune", "pairs.jsonl", *options
    ])  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"logger": RUN},
        {"logger": "lightning_fabric.loggers.csv_logs.os.system"},
        {"optimizer": {**RUN, "class_path": "torch.optim.adamw.torch.os.system"}},
        {"head": {**RUN, "class_path": "calmkit.config.parsing.os.system"}},
        {"head": "calmkit.cli.main"},
        {"sampler": "evilmod.S"},
        {"sampler": {"class_path": "evilmod.S"}},
        {"head": {"class_path": "EnergyHead", "init_args": {"noise": "evilmod.N"}}},
        {"head": {"class_path": "EnergyHead", "dict_kwargs": {"noise": "evilmod.N"}}},
        {"head": "evil.yaml"},
        {"head": "{class_path: evilmod.H}"},
        {"head": ["evilmod.H"]},
        {"head.class_path": "evilmod.H"},
        {"config": "evil.yaml"},
    ],
    ids=str,
)
def test_a_config_runs_nothing(folder, capsys, values):
    """`evaluate` and `train --finetune` name what is wrong, or do not read it at all."""
    change(folder, **values)
    not_read = set(values) <= {"logger", "optimizer"}
    options = ["--checkpoint", "model", "--diagnostics", "false"]
    assert cli.main(["evaluate", *options]) == (0 if not_read else 2)
    assert finetune() == 2
    assert nothing_ran(folder)
    err = capsys.readouterr().err
    assert "Traceback" not in err and len(err.splitlines()) <= 24
    assert "model/config.yaml" in err


@pytest.mark.parametrize("name", ["base", "train", "finetune"])
def test_a_file_of_a_presets_name_is_not_the_preset(folder, name):
    """Whoever stands in a model's folder may have any file there."""
    Path(name).write_text("head: evilmod.H\n")
    assert cli.main(["evaluate", "--checkpoint", "model", "--diagnostics", "false"]) == 0
    assert finetune("--training.steps", "0") == 2
    assert nothing_ran(folder)


def test_generate_reads_no_config(folder, capsys):
    change(folder, sampler="evilmod.S", head="evilmod.H")
    assert cli.main(["generate", "--checkpoint", "model", "--max_new_tokens", "3"]) == 0
    assert nothing_ran(folder)


NAMES = (
    "evilmod", "evilmod.H", "evilmod.os.system", "os.system", "calmkit.cli.main", "evil",
    "calmkit.config.parsing.os.system", "calmkit.heads.energy.torch.hub.load", "subprocess.run",
    "lightning_fabric.loggers.csv_logs.os.system", "torch.hub.load", "torch.optim.lr_scheduler",
    "evil.yaml", "./evil.yaml", "model/evil.yaml", "{class_path: evilmod.H}", "class_path: evil",
    "-", "${evilmod.H}", "${oc.env:HOME}", "file:evil.yaml", "evilmod:H", "evilmod.H()",
    " evilmod.H", "evilmod.H\n", "calmkit.heads.EnergyHead.evilmod.H", "builtins.exec",
)  # fmt: skip
KEYS = (
    "head", "backbone", "autoencoder", "sampler", "logger", "optimizer", "autoencoder_optimizer",
    "evaluation", "training", "model", "input", "precision", "seed", "positions", "config", "more",
)  # fmt: skip


def forms(name):
    """Every way to give a name, and things that hold one."""
    plain = st.sampled_from([
        name, {"class_path": name}, {"class_path": name, "init_args": {"command": "touch trace"}},
        {"name": name}, {name: 1}, {"head": name}, {"class_path": "EnergyHead", "head": name},
    ])  # fmt: skip
    return st.recursive(
        plain,
        lambda inside: st.one_of(
            st.lists(inside, min_size=1, max_size=2),
            inside.map(lambda one: {"class_path": "EnergyHead", "init_args": {"rule": one}}),
            inside.map(lambda one: {"class_path": "EnergyHead", "init_args": one}),
            inside.map(lambda one: {"class_path": "FlowHead", "dict_kwargs": {"solver": one}}),
            inside.map(lambda one: {"returns": one}),
            inside.map(lambda one: {"mapping": {"x": {"tuple": [one]}}}),
        ),
        max_leaves=3,
    )


hostile = st.sampled_from(NAMES).flatmap(forms)
MANY = settings(
    max_examples=60, phases=[Phase.generate], deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@given(key=st.sampled_from(KEYS), value=hostile)
@MANY
def test_no_form_of_a_name_in_a_config_runs_anything(folder, key, value):
    """Parsed for fine-tuning, which reads most of it."""
    change(folder, **{key: value})
    try:
        config.parse(["--checkpoint", "model", "--finetune", "p.jsonl"], command="calmkit train")
    except ValueError as error:
        assert len(str(error)) < 2000
    assert nothing_ran(folder)


@given(key=st.sampled_from(KEYS), value=hostile)
@settings(MANY, max_examples=20)
def test_no_form_of_a_name_in_a_config_runs_anything_when_it_is_measured(folder, key, value):
    change(folder, **{key: value})
    options = ["--checkpoint", "model", "--diagnostics", "false"]
    assert cli.main(["evaluate", *options]) in (0, 2)
    assert nothing_ran(folder)


def with_description(folder, description):
    """The model with another description, and the digests of it."""
    file = folder / "model.safetensors"
    content, tensors = read_model_file(file)
    with replacing(file) as (partial,):  # the tensors still lie in the old file
        write_model_file(partial, type(content)(description, content.tokenizer), tensors)


@given(value=hostile)
@settings(MANY, max_examples=30)
def test_no_form_of_a_name_in_a_description_runs_anything(folder, value):
    (folder / "config.yaml").unlink(missing_ok=True)
    with_description(folder, value)
    for command in (
        ["generate", "--checkpoint", "model", "--max_new_tokens", "3"],
        ["evaluate", "--checkpoint", "model"],
        ["convert", "--checkpoint", "model", "--output", "other"],
    ):
        assert cli.main(command) == 2
    assert nothing_ran(folder)


@pytest.mark.parametrize("name", ["evilmod.os.system", "evilmod.os", "evilmod.EnergyHead"])
def test_trust_is_in_what_a_package_defines(folder, capsys, name):
    """Its own module is imported then; what that imports stays out of reach."""
    command = {"class_path": name, "init_args": {"command": "ran"}}
    change(folder, head=command)
    options = ["--checkpoint", "model", "--trust", "evilmod"]
    assert cli.main(["evaluate", *options]) == 2
    assert f"config.yaml: {name} must be" in capsys.readouterr().err
    with_description(folder, command)
    assert cli.main(["generate", *options]) == 2
    assert f"{name} must be" in capsys.readouterr().err
    assert not (folder.parent / "ran").exists()


def test_a_trusted_class_may_be_measured_and_trained_on(folder, capsys):
    head = {"class_path": "evilmod.H", "init_args": {"width": 16, "depth": 3}}
    change(folder, head=head)
    options = ["--checkpoint", "model", "--trust", "evilmod"]
    assert cli.main(["evaluate", *options, "--diagnostics", "false"]) == 0
    assert finetune("--trust", "evilmod", "--head.depth", "2") == 2
    assert "the config must build a model of the sizes of checkpoint" in capsys.readouterr().err


def test_published_folders_and_results_run_nothing(folder, capsys, tmp_path):
    """Their files are JSON: nested too deeply, or full of names, they are refused by name."""
    deep = "[" * 100_000 + "]" * 100_000
    published = tmp_path / "published"
    published.mkdir()
    names = {"class": "evilmod.H", "auto_map": {"AutoModel": "evilmod.H"}, "num_hidden_layers": 9}
    for text in (deep, '{"a":' * 5000 + "1" + "}" * 5000, json.dumps(names), "9" * 5000):
        (published / "config.json").write_text(text)
        torch.save({"x": torch.zeros(1)}, published / "pytorch_model.bin")
        (published / "results.json").write_text(text)
        for command in (
            ["generate", "--checkpoint", "published"],
            ["convert", "--checkpoint", "published", "--output", "other"],
            ["report", "published", "--output", "other"],
        ):
            assert cli.main(command) == 2
            err = capsys.readouterr().err
            assert "published" in err and "Traceback" not in err and len(err) < 2000
    assert nothing_ran(folder)


def importing(folder, command):
    """Run a command in a folder; a library looks for another one while a model is loaded."""
    whole = model_folder.load

    def load(*args, **kwargs):
        with contextlib.suppress(ImportError):
            importlib.import_module("not_installed")
        print("it was looked for")
        return whole(*args, **kwargs)

    os.chdir(folder)
    model_folder.load = load
    sys.exit(cli.main(command))


@pytest.mark.parametrize(
    ("options", "imported"),
    [
        (["generate", "--max_new_tokens", "2"], False),
        (["convert", "--output", "other"], False),
        (["train", "--finetune", "pairs.jsonl"], False),
        (["generate", "--max_new_tokens", "2", "--trust", "mine"], True),
    ],
    ids=str,
)
def test_no_module_in_the_current_folder_is_imported(folder, options, imported):
    """Libraries look for others that are not installed; a model's folder must not be them."""
    (folder / "not_installed.py").write_text("print('it ran')")
    said = folder / "said"
    process = forking.start(importing, folder, [*options, "--checkpoint", "."], output=said)
    forking.finished(process)
    assert "it was looked for" in said.read_text()
    assert ("it ran" in said.read_text()) == imported, said.read_text()


def test_what_is_no_file_is_not_read(folder):
    """A link in a folder may lead to a device, which has no end; here to a pipe."""
    reading, writing = os.pipe()
    os.write(writing, b"{}")
    os.close(writing)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(f"/proc/self/fd/{reading}")
    assert not model_folder.is_published(folder)
    os.close(reading)


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in itertools.pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head: " + "[" * 200 + "]" * 200, "nested more than 100 deep"),
        ("head: " + "{a: " * 5000 + "1" + "}" * 5000, "nested more than 100 deep"),
        (LAUGHS, "at most 100000 values"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "must not merge"),
        ("a: &a [*a]\n", "nested more than 100 deep"),
        ("seed: 1\nseed: 2\n", "'seed' is given twice"),
        ("seed: 2001-99-99\n", "it is not YAML"),
        ("seed: 2001-01-01\n", "seed must be a text, a number"),
        ("head: !!python/object/apply:os.system [touch trace]\n", "it is not YAML"),
        ("positions: 1" + "0" * 40 + "\n", "a whole number must be at most"),
        ("data: [x.txt]\n", "data must be the path of a text"),
        ("- seed\n", "must hold keys and values"),
        ("sede: 1\n", "did you mean: seed"),
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_other_damage_of_a_config_is_named(folder, capsys, text, said):
    (folder / "config.yaml").write_text(text)
    for command in (lambda: cli.main(["evaluate", "--checkpoint", "model"]), finetune):
        assert command() == 2
        err = capsys.readouterr().err
        assert said in err and "config.yaml" in err and "Traceback" not in err
    assert nothing_ran(folder)


@pytest.mark.parametrize(
    "part",
    [
        {"head": {"class_path": "EnergyHead", "init_args": {"depth": 10**7, "width": 1}}},
        {"head": {"class_path": "EnergyHead", "init_args": {"width": 10**6}}},
        {"hidden_size": 10**6},
    ],
    ids=str,
)
def test_a_config_asks_for_no_more_than_the_model_has(folder, capsys, part):
    change(folder, **part)
    options = ["--checkpoint", "model", "--diagnostics", "false"]
    for command in (lambda: cli.main(["evaluate", *options]), finetune):
        assert command() == 2
        assert "the description must request" in capsys.readouterr().err


def test_the_output_of_a_measurement_is_not_the_configs_choice(folder, tmp_path):
    outside = tmp_path / "outside"
    change(folder, output=str(outside), cache_dir=str(outside))
    assert cli.main(["evaluate", "--checkpoint", "model", "--diagnostics", "false"]) == 0
    assert not outside.exists()
    kept = yaml.safe_load((folder / "evaluation" / "config.yaml").read_text())
    assert not {"output", "cache_dir", "logger", "optimizer"} & kept.keys()
    assert kept["seed"] == 0


def test_a_text_that_the_config_names_is_told_before_it_is_read(folder, capsys, tmp_path):
    (tmp_path / "private.txt").write_text("a private text, " * 400)
    change(folder, data="private.txt")
    cli.main(["evaluate", "--checkpoint", "model"])
    said = capsys.readouterr().out
    assert f"Reading {tmp_path}/private.txt, which model/config.yaml names." in said


def test_weights_without_their_digest_are_refused(folder, capsys):
    file = folder / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        texts = opened.metadata()
    tensors = load_file(file)
    save_file(tensors, file, metadata={"calmkit": texts["calmkit"]})
    assert cli.main(["generate", "--checkpoint", "model"]) == 2
    assert "must be written by `calmkit.save`" in capsys.readouterr().err
