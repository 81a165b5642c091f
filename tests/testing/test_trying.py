"""`try_part` and `try_model`: one sentence for what cannot be trained or sampled."""

import sys

import autoencoder_mutants
import backbone_mutants
import pytest
import right_head
import rule_mutants
import torch
from sampler_mutants import TokensAlone
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import MinGRUBackbone
from calmkit.heads import GaussianHead
from calmkit.models import CALM, ChunkEmbedding
from calmkit.testing import UnfitPart, try_model, try_part

L1 = """
import torch
from torch import nn
from calmkit.heads import Head


class L1Head(Head):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.mean = nn.Linear(cond_size, latent_size)

    @property
    def evaluations_per_sample(self):
        return 1

    def loss(self, cond, target, generator=None):
        return self.distances(cond, target).sum(dim=-1)

    def distances(self, cond, target):
        return (self.mean(cond) - target.mean).abs()

    def sample(self, cond, num_samples, generator=None):
        return self.mean(cond).expand(num_samples, *cond.shape[:-1], self.latent_size)
"""


@pytest.fixture
def head(tmp_path, monkeypatch):
    """The class of a head in a file of its own, whose text a test may change."""

    def import_with(old="", new=""):
        assert old in L1
        (tmp_path / "own_l1.py").write_text(L1.replace(old, new))
        return __import__("own_l1").L1Head

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield import_with
    sys.modules.pop("own_l1", None)


def said_of(part):
    with pytest.raises(UnfitPart) as caught:
        try_part(part)
    return str(caught.value)


SAMPLES = "self.mean(cond).expand(num_samples, *cond.shape[:-1], self.latent_size)"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (SAMPLES, "self.mean(cond)",
         "L1Head.sample must return (samples, *batch, latent) = (2, 3, 8); got (3, 8). The "
         "likely cause: the samples' axis is missing, or not the first."),
        (SAMPLES, SAMPLES + "[..., 1:]",
         "L1Head.sample must return (samples, *batch, latent) = (2, 3, 8); got (2, 3, 7). The "
         "likely cause: the last axis is of another size than the part was built for."),
        (SAMPLES, SAMPLES + ".float()",
         "L1Head.sample must return torch.float64, as its weights are; got torch.float32. The "
         "likely cause: a tensor is made without dtype=, or cast to a fixed one."),
        (SAMPLES, SAMPLES + ".tolist()",
         "L1Head.sample must return a tensor (samples, *batch, latent) = (2, 3, 8); got a list. "
         "The likely cause: the samples' axis is missing, or not the first."),
        (".sum(dim=-1)", ".mean()",
         "L1Head.loss must return (*batch) = (3,); got (). The likely cause: the loss is reduced "
         "over the batch, or summed over another axis than the last."),
        (".abs()", ".abs().detach()",
         "L1Head.loss must have a gradient that reaches the weights; it has none. The likely "
         "cause: detach(), item(), no_grad() or an integer on the way."),
        ("return 1", "return 1.5",
         "L1Head.evaluations_per_sample must be a whole number, or None where it depends on the "
         "data; got 1.5. The likely cause: it is a method, not a property, or a float."),
        ("(self.mean(cond) - target.mean)", "self.median(cond)",
         "L1Head.loss(cond=float64[3, 16], target=Gaussian float64[3, 8], generator=generator of "
         "seed 0) raised AttributeError: 'L1Head' object has no attribute 'median'\n"
         "  own_l1.py:17, in loss: return self.distances(cond, target).sum(dim=-1)\n"
         "  own_l1.py:20, in distances: return self.median(cond).abs()"),
    ],
    ids=["axis", "latent", "dtype", "list", "scalar", "detached", "evaluations", "raises"],
)  # fmt: skip
def test_a_broken_head_is_told_in_one_sentence(head, old, new, said):
    assert said_of(head(old, new)(16, 8)) == said


def test_a_long_error_is_cut(head):
    said = said_of(head(".abs()", '.oops("x" * 5000)')(16, 8))
    assert len(said) < 600
    deep = "(self if cond is None else self.deep(cond, 50))"
    said = said_of(head("(self.mean(cond) - target.mean)", deep)(16, 8))
    assert len(said.splitlines()) == 3


def test_annotated_results_are_told_like_others():
    class Typed(rule_mutants.MeanOfPositions):
        pass

    said = said_of(Typed())
    assert (
        said == "Typed.score must return Float[Tensor, '*batch'], as it is annotated; got f64[]."
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (lambda: backbone_mutants.Transposed(8),
         "Transposed.forward must return (batch, positions, hidden) = (2, 5, 8); got (5, 2, 8)"),
        (lambda: autoencoder_mutants.WithoutPlaces(3, 11, 5),
         "WithoutPlaces.decode must return (*batch, chunk, vocab) = (3, 3, 11); got (3, 33)"),
        (lambda: autoencoder_mutants.MeanLoss(3, 11, 5),
         "the total of MeanLoss.loss must return (*batch) = (3,); got ()"),
    ],
    ids=["backbone", "decode", "loss"],
)  # fmt: skip
def test_other_kinds(part, said):
    assert said_of(part()).startswith(said)


def test_right_parts_are_right(head):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for part in (
        head()(16, 8), right_head.Right(5, 3), rule_mutants.Right(),
        backbone_mutants.Right(8), autoencoder_mutants.Right(3, 11, 5),
        nn.Linear(2, 2),  # of no kind
    ):  # fmt: skip
        torch.manual_seed(0)
        try_part(part)
        assert torch.equal(torch.get_rng_state(), before)


def model(**parts):
    autoencoder = MLPAutoencoder(2, 11, 4, width=8)
    own = {"backbone": MinGRUBackbone(6, depth=1), "head": GaussianHead(6, 4, width=8, depth=1)}
    encoder = ChunkEmbedding(11, 2, 6)
    return CALM(autoencoder=autoencoder, input_encoder=encoder, **(own | parts))


def test_a_model_is_trained_and_writes():
    built = model()
    before = torch.get_rng_state()
    try_model(built)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is not None for p in built.head.parameters())


def test_a_backbone_without_a_cache_cannot_write():
    class Forgetful(MinGRUBackbone):
        def new_cache(self, batch_size, capacity):
            raise NotImplementedError("no cache here")

    with pytest.raises(UnfitPart) as caught:
        try_model(model(backbone=Forgetful(6, depth=1)))
    said, line = str(caught.value).splitlines()
    assert said == "generating text raised NotImplementedError: no cache here"
    assert line.strip().startswith(f"{__file__}:") or "test_trying.py:" in line


def test_a_sampler_of_bare_tokens_is_told():
    said = "must return calmkit.sampling.SampledChunks; got a Tensor"
    with pytest.raises(UnfitPart, match=said):
        try_model(model(), TokensAlone())
