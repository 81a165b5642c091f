"""Which backend runs: by name, by `auto`, and never silently another than the one asked for."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from calmkit.attention import (
    AttentionBackendError,
    AttentionMask,
    attention,
    available_backends,
    backends,
    register_backend,
)
from calmkit.attention.reference import reference_attention
from calmkit.attention.sdpa import sdpa_attention
from calmkit.backbones import TransformerBackbone

CPU_XFORMERS = (
    "attention backend 'xformers' cannot run this call: the tensors are on cpu. "
    "Use backend='sdpa' or 'auto'."
)


class OnGPU:
    """What `choose_backend` reads of a tensor, said to be on a GPU."""

    def __init__(self, dtype=torch.bfloat16):
        self.device = torch.device("cuda", 0)
        self.dtype = dtype
        self.shape = (2, 5, 4, 8)
        self.requires_grad = False


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))
    monkeypatch.setattr(backends, "_WARNED", set())
    return backends._BACKENDS


PACKED = AttentionMask.packed([(2, 3)])


def choose(name, q, mask=PACKED, dropout=0.0):
    return backends.choose_backend(name, q, q, q, mask, dropout=dropout)


def stand_in(registry, refusal, name="xformers"):
    def run(q, k, v, mask, *, scale, dropout):
        raise NotImplementedError

    registry[name] = backends._Backend(run, lambda *_, **__: refusal)
    return run


def test_names_choose_functions(registry):
    q = torch.zeros(2, 5, 4, 8)
    assert choose("auto", q) is sdpa_attention
    assert choose("sdpa", q) is sdpa_attention
    assert choose("reference", q) is reference_attention
    # On a GPU a name still means what it says.
    assert choose("sdpa", OnGPU()) is sdpa_attention


def test_auto_takes_xformers_on_a_gpu_where_it_can(registry):
    run = stand_in(registry, None)
    assert choose("auto", OnGPU()) is run
    assert choose("auto", torch.zeros(2, 5, 4, 8)) is sdpa_attention


@pytest.mark.parametrize(
    ("mask", "length", "chosen"),
    [
        (AttentionMask.full(), 5, sdpa_attention),
        (AttentionMask.full(), 7, sdpa_attention),
        (AttentionMask.causal(), 5, sdpa_attention),
        (AttentionMask.causal(), 7, None),
        (AttentionMask.causal(window=3), 5, None),
        (AttentionMask.cached(torch.tensor([3, 5])), 5, None),
    ],
)
def test_auto_takes_xformers_only_where_others_need_a_mask(registry, mask, length, chosen):
    run = stand_in(registry, None)
    q, k = OnGPU(), torch.zeros(2, length, 4, 8)
    assert backends.choose_backend("auto", q, k, k, mask, dropout=0.0) is (chosen or run)


@pytest.mark.parametrize("refusal", [None, "no kernel"])
def test_where_xformers_cannot_run_auto_takes_varlen_or_sdpa(registry, monkeypatch, refusal):
    stand_in(registry, "compiled")
    run = stand_in(registry, refusal, name="varlen")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose("auto", OnGPU()) is (run if refusal is None else sdpa_attention)


def test_no_warning_under_compile(registry, monkeypatch):
    stand_in(registry, "compiled")
    stand_in(registry, "no kernel", name="varlen")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", OnGPU()) is sdpa_attention


def test_auto_falls_back_on_a_gpu_with_one_warning_per_reason(registry):
    stand_in(registry, "it is Sunday")
    stand_in(registry, "no kernel", name="varlen")
    with pytest.warns(UserWarning, match="instead of xformers: it is Sunday"):
        assert choose("auto", OnGPU()) is sdpa_attention
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", OnGPU()) is sdpa_attention
    stand_in(registry, "it is Monday")
    with pytest.warns(UserWarning, match="it is Monday"):
        choose("auto", OnGPU())


def test_an_explicit_backend_never_falls_back(registry):
    stand_in(registry, "it is Sunday")
    with pytest.raises(AttentionBackendError, match="it is Sunday"):
        choose("xformers", OnGPU())


def test_the_message_names_the_cause_and_the_way_out():
    q = torch.zeros(1, 2, 1, 4)
    with pytest.raises(AttentionBackendError) as caught:
        attention(q, q, q, backend="xformers")
    assert str(caught.value) == CPU_XFORMERS


def test_an_unknown_name_is_refused():
    q = torch.zeros(1, 2, 1, 4)
    with pytest.raises(
        ValueError, match="one of auto, xformers, varlen, sdpa, reference; got 'flash'"
    ):
        attention(q, q, q, backend="flash")


def test_a_backend_of_ones_own(registry):
    calls = []

    def mine(q, k, v, mask, *, scale, dropout):
        calls.append((mask, scale, dropout))
        return reference_attention(q, k, v, mask, scale=scale, dropout=dropout)

    def refusal(q, k, v, mask, *, dropout):
        return "dropout is not supported" if dropout else None

    register_backend("mine", mine, refusal=refusal)
    q = torch.randn(1, 3, 2, 4)
    mask = AttentionMask.causal()
    torch.testing.assert_close(
        attention(q, q, q, mask, scale=0.2, backend="mine"), attention(q, q, q, mask, scale=0.2)
    )
    assert calls == [(mask, 0.2, 0.0)]
    assert "mine" in available_backends()
    with pytest.raises(AttentionBackendError, match=r"'mine'.* dropout is not supported"):
        attention(q, q, q, mask, dropout=0.1, backend="mine")


def test_a_backbone_takes_a_backend_of_ones_own(registry):
    def twice(*arguments, **options):
        return 2 * reference_attention(*arguments, **options)

    with pytest.raises(ValueError, match="got 'twice'"):
        TransformerBackbone(8, depth=1, heads=2, attention_backend="twice")
    register_backend("twice", twice)
    plain = TransformerBackbone(8, depth=1, heads=2)
    doubled = TransformerBackbone(8, depth=1, heads=2, attention_backend="twice")
    doubled.load_state_dict(plain.state_dict())
    x = torch.randn(1, 4, 8)
    assert not torch.allclose(doubled(x), plain(x))
    # The output projection is linear: half of its weights undo the factor.
    doubled.layers[0].attention.output.weight.data.div_(2)
    torch.testing.assert_close(doubled(x), plain(x))


@pytest.mark.parametrize("name", ["auto", "sdpa"])
def test_a_name_that_is_taken_is_refused(registry, name):
    with pytest.raises(ValueError, match=f"name must be new; '{name}' is taken"):
        register_backend(name, sdpa_attention)


def test_available_backends(monkeypatch):
    assert available_backends() == ("sdpa", "reference")
    monkeypatch.setattr(backends, "xformers_missing", lambda device: None)
    assert available_backends("cuda:0") == ("xformers", "sdpa", "reference")


def test_the_choice_leaves_nothing_in_a_compiled_graph(registry, monkeypatch):
    """The warning and the probe run while the graph is traced; the graph stays whole."""
    q = torch.randn(1, 3, 2, 4)

    def compute(q):
        backends._warn_once("seen while tracing")
        if backends.xformers_missing(q.device) is None:
            return q
        return attention(q, q, q)

    with pytest.warns(UserWarning, match="seen while tracing"):
        out = torch.compile(compute, fullgraph=True, backend="eager")(q)
    torch.testing.assert_close(out, attention(q, q, q))


def test_xformers_is_not_imported_before_it_is_needed(tmp_path):
    """Nor on the CPU at all. An xformers that ends the program stands in for the real one."""
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").write_text("raise SystemExit('imported')")
    program = """
import torch, calmkit, calmkit.models
from calmkit.attention import AttentionBackendError, attention, available_backends
from calmkit.backbones import TransformerBackbone
assert available_backends() == ("sdpa", "reference")
TransformerBackbone(8, depth=1, heads=2, attention_backend="xformers")
q = torch.zeros(1, 2, 1, 4)
attention(q, q, q)
try:
    attention(q, q, q, backend="xformers")
except AttentionBackendError as error:
    print(error)
import xformers
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == CPU_XFORMERS
    assert done.stderr.strip() == "imported"  # only by the last line
