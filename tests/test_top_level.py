"""`import calmkit` reaches every package, and imports it only when it is used."""

import subprocess
import sys

import pytest

import calmkit


def test_packages_are_attributes_that_are_imported_on_first_access():
    code = (
        "import sys, calmkit\n"
        "assert 'heads' in dir(calmkit) and 'load' in dir(calmkit)\n"
        "assert 'torch' not in sys.modules\n"
        "head = calmkit.heads.EnergyHead(4, 2, width=8)\n"
        "assert 'calmkit.cli' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'calmkit' has no attribute 'haeds'"):
        _ = calmkit.haeds
