"""Benchmarks as modules."""

import importlib

import pytest
from benchmark_runs import BENCHMARKS


@pytest.fixture
def load(monkeypatch):
    """Imports a file of the benchmarks by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
