"""Loggers of curves: short to name, made on demand, any class with their three methods."""

import logging
import subprocess
import sys
import types

import pytest

from calmkit.config import ConfigError, check_parts, parse
from calmkit.training import CSVCurves, CurveLogger, TensorBoardCurves, WandbCurves
from calmkit.training.curves import Curves


class Run:
    """Records what wandb would be told."""

    def __init__(self, **settings):
        self.settings, self.points, self.ended = settings, [], None

    def log(self, values, step):
        self.points.append((step, values))

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
    runs = []
    fake = types.ModuleType("wandb")
    fake.init = lambda **settings: runs.append(Run(**settings)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def logger_of(*options):
    return parse(list(options), command="calmkit train").experiment.logger


def test_points_are_written_to_a_csv_file(tmp_path):
    logger = logger_of("--logger.flush_every=1")(tmp_path)
    assert type(logger) is CSVCurves
    for step in (1, 2):
        logger.log_metrics({"train/loss": step / 2}, step=step)
    logger.finalize("success")
    written = (tmp_path / "curves" / "version_0" / "metrics.csv").read_text().split()
    assert written == ["step,train/loss", "1,0.5", "2,1.0"]


@pytest.mark.parametrize(
    ("name", "made"),
    [("csv", CSVCurves), ("CSV", CSVCurves), ("tensorboard", TensorBoardCurves),
     ("wandb", WandbCurves), ("WandbCurves", WandbCurves)],
)  # fmt: skip
def test_short_names(tmp_path, name, made):
    text = parse(["--logger", name], command="calmkit train").text
    assert f"class_path: calmkit.training.{made.__name__}" in text
    file = tmp_path / "my.yaml"
    file.write_text(f"logger: {{class_path: {name}}}")
    assert parse(["--config", str(file)], command="calmkit train").text == text


def test_a_logger_of_fabric_is_one():
    from lightning_fabric.loggers import CSVLogger

    assert issubclass(CSVLogger, CurveLogger) and not issubclass(dict, CurveLogger)
    given = logger_of("--logger", "lightning_fabric.loggers.CSVLogger", "--logger.name", "mine")
    assert given("somewhere").name == "mine"


def test_an_unknown_logger_is_refused():
    with pytest.raises(ConfigError, match="did you mean: WandbCurves"):
        logger_of("--logger", "wandbcurve")


def test_wandb_is_told_each_point_of_a_run_and_its_end(tmp_path, wandb):
    make = logger_of("--logger", "wandb", "--logger.project", "mine", "--logger.group", "g")
    logger = make(tmp_path / "flow" / "logs" / "model")
    assert wandb == []  # no run before there is a point
    logger.log_metrics({"train/loss": 1.5}, step=10)
    logger.log_metrics({"train/loss": 1.0}, step=20)
    (run,) = wandb
    assert run.points == [(10, {"train/loss": 1.5}), (20, {"train/loss": 1.0})]
    assert run.settings | {"dir": ""} == {
        "project": "mine", "name": "flow/model", "entity": None, "group": "g", "dir": "",
        "reinit": "create_new",
    }  # fmt: skip
    logger.save()
    assert run.ended is None
    logger.finalize("success")
    logger.finalize("success")
    assert run.ended == 0
    failed = make(tmp_path)
    failed.log_metrics({"a": 1.0}, step=1)
    failed.finalize("failed")
    assert wandb[1].ended == 1


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_library_is_told_with_its_remedy(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    experiment = parse(["--logger", name], command="calmkit train").experiment
    with pytest.raises(ConfigError, match=rf"logger: .* needs {name}; install it with pip"):
        check_parts(experiment)


def test_a_config_imports_neither_fabric_nor_what_it_compares_versions_of():
    program = """
import sys
from calmkit.config import parse
parse([], command="calmkit train")
print(sorted({"lightning_fabric", "torchmetrics", "transformers"} & {*sys.modules}))
from calmkit.extras import load_fabric
print(load_fabric("a test").Fabric.__name__)
print(sorted({"torchmetrics", "transformers", "matplotlib"} & {*sys.modules}))
from importlib.util import find_spec
print(find_spec("torchmetrics").name)  # no stand-in of it is left, which would have no spec
load_fabric("a test").Fabric(accelerator="cpu", precision="bf16-mixed")  # without a word
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["[]", "Fabric", "[]", "torchmetrics", ""]
    assert done.stderr == ""


def test_each_point_is_logged_once_and_by_one_process(caplog):
    caplog.set_level(logging.DEBUG, "calmkit")
    point, history = (2, {"loss": 0.5}), types.SimpleNamespace(curve=[], validation=[])
    for reports in (True, False):
        fabric = types.SimpleNamespace(is_global_zero=reports, loggers=[])
        curves = Curves(fabric, None, ())
        curves.write("train", point)
        curves.write("validation", point)
        history.curve, history.validation = [point], [point]
        curves.write_all(history)  # those of the run before it was resumed
    assert caplog.record_tuples == [
        ("calmkit.training", logging.DEBUG, "step 2, train: loss 0.5"),
        ("calmkit.training", logging.INFO, "step 2, validation: loss 0.5"),
    ]
