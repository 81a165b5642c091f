"""What is packed: wheel and sdist hold all that is needed, and the wheel works by itself."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import calmkit

ROOT = Path(__file__).parents[1]
PACKED = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile",
          "README.md", "constraints.txt", "pyproject.toml", "zensical.toml", ".ci", "calmkit",
          "docs", "examples", "tests")  # fmt: skip
NAME = re.compile(r"[\w.\[\]-]+")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of a wheel and an sdist, from a copy: a build leaves folders behind."""
    pytest.importorskip("setuptools", minversion="77")
    copy, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("built")
    without = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=without)
        else:
            shutil.copy(ROOT / name, copy / name)
    for kind in ("sdist", "wheel"):
        command = [sys.executable, "-c", BUILD.format(kind), str(folder)]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def files_of(folder):
    """Files below a folder of the checkout, by their path in it."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == files_of("calmkit")
    assert {"calmkit/py.typed", "calmkit/presets/base.yaml"} <= names
    assert {"calmkit/reports/page.html", "calmkit/reports/page.js"} <= names


def test_the_wheel_says_what_it_needs(wheel):
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert "[console_scripts]\ncalmkit = calmkit.cli:main" in entry_points
    assert "[pytest11]" not in entry_points, "nothing happens in pytest unless it is called"
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in archive.read(f"{info}/METADATA").decode().splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    core = {NAME.match(need)[0] for need in needs if "extra ==" not in need}
    assert core == {"torch", "einops", "jaxtyping", "beartype", "numpy"}
    testing = {NAME.match(need)[0] for need in needs if 'extra == "testing"' in need}
    assert testing == {"hypothesis", "jsonargparse[signatures]", "pytest"}


def test_the_sdist_holds_tests_and_docs_too(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    for folder in (".ci", "calmkit", "docs", "examples", "tests"):
        assert files_of(folder) <= names
    assert {name for name in PACKED if (ROOT / name).is_file()} <= names
    assert not any("__pycache__" in name for name in names)


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [project["version"]]
    assert calmkit.__version__ == project["version"]


def test_every_extra_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs" / "index.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    assert set(project["optional-dependencies"]) <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_library_of_every_extra_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = sum(project["optional-dependencies"].values(), project["dependencies"])
    named = {re.match(r"[\w-]+", need)[0] for need in needs} - {"calmkit"}
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    assert named - set(re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)) == set()


PART = """
import calmkit
from calmkit.scoring import EnergyScore

assert calmkit.__file__.startswith({place!r}), calmkit.__file__


class Right(EnergyScore):
    pass


class Wrong(EnergyScore):
    def spread(self, samples):
        return 1.5 * super().spread(samples)
"""
TEST = """
from calmkit.testing import parametrize_contracts
from my_rules import Right, Wrong


@parametrize_contracts("rule", {"right": Right, "wrong": Wrong}, profile="quick")
def test_contract(check):
    check()
"""


def test_the_suites_work_from_a_wheel_in_an_empty_folder(wheel, tmp_path):
    place, folder = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(place)
    folder.mkdir()
    (folder / "my_rules.py").write_text(PART.format(place=str(place)))
    (folder / "test_my_rules.py").write_text(TEST)

    def run(*arguments):
        # Safe paths: as the command `calmkit` begins, without the current folder.
        command = [sys.executable, "-P", "-m", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(place)}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )

    name = "proper_on_finite_supports"
    options = ["--only", f"dtype_is_kept,{name}", "--profile", "quick"]
    checked = run("calmkit", "check", "my_rules", *options)
    assert checked.returncode == 1 and "2 passed" in checked.stdout, checked.stderr
    assert f"calmkit check my_rules.Wrong --only {name} --profile quick" in checked.stdout
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "-k", f"dtype_is_kept or {name}")
    assert "1 failed, 3 passed" in tested.stdout, tested.stdout
