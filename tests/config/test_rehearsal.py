"""Parts that are not calmkit's are tried before anything is trained, and calmkit's own are not."""

import time

import pytest
import torch
import yaml

from calmkit.config import ConfigError, check_parts, parse, rehearsal, rehearse
from calmkit.experiments import preparing

PARTS = """
from torch import Generator
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import Backbone, MinGRUBackbone
from calmkit.heads import EnergyHead, Head, MidpointSolver
from calmkit.sampling import Draw, PlainSampler, SampledChunks
from calmkit.scoring import EnergyScore


class Right(EnergyHead):
    pass


class OneSample(EnergyHead):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, 1, generator)[0]


class OneScore(EnergyScore):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).mean()


class Stuck(MidpointSolver):
    def integrate(self, field, x, start=0.0, end=1.0):
        return self.missing


class WithoutCache(MinGRUBackbone):
    def new_cache(self, batch_size, capacity):
        raise NotImplementedError("whole rows only")


class OneLogit(MLPAutoencoder):
    def decode(self, latents):
        return super().decode(latents)[..., :1]


class Bare:
    def __call__(self, draw: Draw, generator: Generator | None = None) -> SampledChunks:
        return PlainSampler()(draw, generator).tokens


class GrownRows(MLPAutoencoder):
    def loss_rows(self, batch, generator=None):
        return self.loss(batch.tokens[:, 1:].missing, generator)


def make_backbone(hidden_size: int) -> Backbone:
    return WithoutCache(hidden_size, depth=1)
"""
SMALL = ["--vocab_size=300", "--hidden_size=16", "--head.width=16", "--latent_size=8",
         "--backbone.depth=1", "--backbone.heads=2", "--autoencoder.width=16"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_parts_tried.py").write_text(PARTS)
    return folder


@pytest.fixture(autouse=True)
def own_parts(folder, monkeypatch, float32):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)


def experiment(*options):
    named = [option.replace("own.", "own_parts_tried.") for option in options]
    return parse([*SMALL, *named], command="calmkit train").experiment


def rehearsed(*options):
    one = experiment(*options)
    rehearse(one, check_parts(one))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--head=own.OneSample"],
         "head: OneSample.sample must return (samples, *batch, latent) = (2, 3, 8); got (3, 8)"),
        (["--head=EnergyHead", "--head.rule=own.OneScore"],
         "head: OneScore.score must return Float[Tensor, '*batch']"),
        (["--head=FlowHead", "--head.solver=own.Stuck"],
         "head: FlowHead.sample(cond=float32[3, 16], num_samples=2, generator=generator of seed "
         "0) raised AttributeError: 'Stuck' object has no attribute 'missing'\n"
         "  own_parts_tried.py:26, in integrate: return self.missing"),
        (["--backbone=own.WithoutCache"],
         "backbone: generating text raised NotImplementedError: whole rows only\n"
         "  own_parts_tried.py:31, in new_cache:"),
        (["--backbone=own.make_backbone"],
         "backbone: generating text raised NotImplementedError: whole rows only"),
        (["--autoencoder=own.OneLogit"],
         "autoencoder: OneLogit.decode must return (*batch, chunk, vocab) = (3, 2, 300); got"),
        (["--autoencoder=own.GrownRows"],
         "autoencoder: GrownRows.loss_rows("),
        (["--sampler=own_parts_tried.Bare"],
         "sampler: Bare must return calmkit.sampling.SampledChunks; got a Tensor"),
        (["--model=token_lm", "--chunk_size=1", "--backbone=own.WithoutCache"],
         "backbone: generating text raised NotImplementedError"),
    ],
    ids=["head", "rule", "solver", "backbone", "function", "decode", "rows", "sampler", "tokens"],
)  # fmt: skip
def test_a_broken_part_is_named(options, said):
    with pytest.raises(ConfigError) as caught:
        rehearsed(*options)
    assert str(caught.value).startswith(said), str(caught.value)


def test_a_right_part_leaves_no_trace():
    before, dtype = torch.get_rng_state(), torch.get_default_dtype()
    rehearsed("--head=own.Right")
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == dtype


def test_in_mixed_precision_any_dtype_will_do():
    rehearsed("--head=own.Right", "--precision=bf16-mixed")


def test_own_parts_are_not_tried(monkeypatch):
    def tried(*arguments, **options):
        raise AssertionError("tried")

    for name in ("try_part", "try_model", "assemble"):
        monkeypatch.setattr(rehearsal, name, tried)
    for options in (
        ["--head=FlowHead"], ["--head=EnergyHead", "--head.rule=MarginalCRPS"],
        ["--sampler=calmkit.sampling.PlainSampler"], ["--model=token_lm", "--chunk_size=1"],
    ):  # fmt: skip
        rehearsed(*options)
    with pytest.raises(AssertionError, match="tried"):
        rehearsed("--head=own.Right")


def test_it_takes_less_than_a_second():
    one = parse(["--head=own_parts_tried.Right"], command="calmkit train").experiment
    model = check_parts(one)
    start = time.perf_counter()
    rehearse(one, model)
    assert time.perf_counter() - start < 1


def test_nothing_is_read_or_trained_before(monkeypatch):
    def reached(*arguments, **options):
        raise LookupError("text")

    monkeypatch.setattr(preparing, "prepare_corpus", reached)
    with pytest.raises(ConfigError, match=r"OneSample\.sample must return"):
        preparing.prepare(experiment("--head=own.OneSample"))
    with pytest.raises(LookupError):
        preparing.prepare(experiment("--head=own.Right"))


def test_a_comparison_names_the_variant(capsys):
    from calmkit.cli import main

    variants = yaml.safe_dump(
        {"fine": {"head": "EnergyHead"}, "mine": {"head": "own_parts_tried.OneSample"}},
        default_flow_style=True, width=1000,
    ).strip()  # fmt: skip
    assert main(["compare", "--config=ci", f"--variants={variants}", "--output=out"]) == 2
    said = "calmkit compare: variant mine: head: OneSample.sample must return (samples, *batch"
    shown = capsys.readouterr().err
    assert shown.startswith(said) and len(shown.splitlines()) < 6
