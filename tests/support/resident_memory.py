"""Work of which the peak memory is measured, each in a process that is forked for it.

The peak of a fork begins at what it holds then. That of a program which is started begins at the
peak of the process that starts it: of tests, more than the work takes.
"""

import re
import sys
from pathlib import Path

import forking
import pytest
import torch

from calmkit.backbones import MinGRUBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate_softmax
from calmkit.models import TokenLM
from calmkit.nn import vocabulary_nats

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def growth(work, folder):
    """By how many MB the peak exceeds what was held before the work, a function of this module."""
    said = folder / "said"
    process = forking.start(_tell, work, output=said)
    assert forking.finished(process) == 0, said.read_text()
    return float(said.read_text().split()[-1])


def _tell(work):
    function = work()
    before = _held("VmRSS")
    function()
    print(_held("VmHWM") - before)


def _held(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s*([0-9]+) kB", status)[1]) / 1024


def large_vocabulary():
    """1,024 targets of 128,257 tokens: their logits alone would take 525 MB."""
    features = torch.randn(8, 128, 8, requires_grad=True)
    weight = torch.randn(128257, 8, requires_grad=True)
    features.grad, weight.grad = torch.zeros_like(features), torch.zeros_like(weight)
    targets = torch.zeros(8, 128, dtype=torch.long)
    return lambda: vocabulary_nats(features, weight, targets).sum().backward()


def softmax_evaluation():
    """1,032 positions of 128,257 tokens: their logits alone would take 530 MB."""
    model = TokenLM(128257, backbone=MinGRUBackbone(8, depth=1))
    tokens = torch.randint(128257, (8, 129, 1))
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((129,),) * 8)
    settings = EvaluationSettings(rows=8, draws=8, min_context=125, bootstrap=10)
    rows = EvaluationRows(batch, torch.arange(8))
    return lambda: evaluate_softmax(model, rows, settings, seed=0)


def account_of_the_largest():
    """CALM-XL: its weights alone would take 7.6 GB."""
    from calmkit.cli import main

    def account():
        assert main(["account", "--preset", "calm-xl"]) == 0

    return account
