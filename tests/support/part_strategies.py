"""Any exported part with any arguments, drawn by the signature of its constructor.

A parameter without a strategy fails with its name: a new one cannot be left out.
"""

import inspect
import types
import typing

import torch
from hypothesis import strategies as st

import calmkit.autoencoders
import calmkit.backbones
import calmkit.heads
import calmkit.models
import calmkit.scoring
from calmkit.autoencoders import (
    ChunkAutoencoder,
    ContextualAutoencoder,
    MLPAutoencoder,
    TokenwiseAutoencoder,
)
from calmkit.backbones import Backbone, RopeScaling
from calmkit.heads import (
    BlockwiseHead,
    Drift,
    EnergyHead,
    FlowHead,
    Head,
    LossWeighting,
    MeanShiftDrift,
    Noise,
    NoiseSchedule,
    Prediction,
    ReverseSampler,
    ReverseVariance,
    Solver,
    TimeDistribution,
)
from calmkit.models import CALM, ChunkEmbedding, InputEncoder, NoisyInput, TokenLM
from calmkit.scoring import (
    EnergyScore,
    GaussianKernel,
    Kernel,
    LaplaceKernel,
    PairwiseScore,
    ScoringRule,
)

PACKAGES = (
    calmkit.heads, calmkit.scoring, calmkit.backbones, calmkit.autoencoders, calmkit.models
)  # fmt: skip
KINDS = (
    Head, Backbone, ChunkAutoencoder, InputEncoder, ScoringRule, Kernel, RopeScaling, Solver,
    Noise, NoiseSchedule, Prediction, ReverseSampler, ReverseVariance, LossWeighting,
    TimeDistribution, Drift,
)  # fmt: skip
CHUNK, VOCAB, LATENT, HIDDEN = 3, 11, 6, 8


def finals(kind):
    """Exported concrete classes below one."""
    found = {
        value
        for package in PACKAGES
        for value in vars(package).values()
        if inspect.isclass(value) and issubclass(value, kind) and not inspect.isabstract(value)
    }
    return sorted(found, key=lambda value: value.__name__)


def _named(cond_size, latent_size):
    return EnergyHead(cond_size, latent_size, width=6, rule=EnergyScore(0.7))


def _of_tokens(chunk_size, vocab_size, latent_size):
    return MLPAutoencoder(chunk_size, vocab_size, latent_size, width=6, depth=0)


positive = st.floats(0.01, 2.0)
share = st.floats(0.0, 0.9)
few = st.integers(1, 4)
llama = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}

# Strategies by the name of a parameter; those of parts are found by their type.
BY_NAME = {
    **dict.fromkeys(("cond_size", "hidden_size"), st.just(HIDDEN)),
    "latent_size": st.just(LATENT), "chunk_size": st.just(CHUNK), "vocab_size": st.just(VOCAB),
    **dict.fromkeys(("steps", "components", "negatives", "noise_size", "depth", "decoder_depth",
                     "num_targets", "num_directions", "positions", "transforms"), few),
    "bins": st.integers(2, 4), "passes": st.none() | st.integers(2, LATENT),
    "length": st.sampled_from([50, 100]),
    "memory_size": st.integers(2, 3), "noise_scale": st.floats(0.0, 2.0),
    "truncation": st.none() | positive,
    **dict.fromkeys(("neighbours_before", "neighbours_after"), st.integers(0, 2)),
    "draws": st.integers(3, 4), "jumps": st.integers(1, 2), "min_std": st.floats(0.01, 0.9),
    "width": st.integers(2, 8), "num_samples": st.integers(2, 5), "rank": st.integers(0, 2),
    **dict.fromkeys(("margin", "distance", "temperature", "std", "scale", "weight",
                     "gamma", "kl_weight", "kl_clip", "rtol", "atol"), positive),
    **dict.fromkeys(("dropout", "token_masking", "latent_dropout", "eta", "power"), share),
    "p": st.floats(0.1, 1.0), "alpha": st.floats(0.1, 1.9), "mean": st.floats(-1, 1),
    "bandwidths": positive | st.lists(positive, min_size=1, max_size=3)
    | st.tuples(positive, positive),
    "weights": st.none() | st.just((0.5, 2.0)),
    "rules": st.just((EnergyScore(), EnergyScore(0.5))),
    "head": st.sampled_from([
        None, EnergyHead, FlowHead, _named, lambda cond, latent: EnergyHead(cond, latent, width=4)
    ]),
    **dict.fromkeys(("large", "own_velocity", "qk_norm", "activation_checkpointing",
                     "sharp", "normalized"), st.booleans()),
    "heads": st.sampled_from([2, 4]), "kv_heads": st.sampled_from([None, 1, 2]),
    "ff_size": st.none() | st.integers(2, 12), "norm_eps": st.sampled_from([1e-6, 1e-5]),
    "rope_theta": st.sampled_from([1e4, 5e5]), "attention_backend": st.sampled_from(["auto"]),
    "model_type": st.just("llama"), "settings": st.just(llama),
    "factor": st.floats(1.0, 8.0), "original_positions": st.integers(1, 64),
    "low_freq_factor": st.just(1.0), "high_freq_factor": st.just(4.0),
    "beta_fast": st.just(32.0), "beta_slow": st.just(1.0),
    "attention_factor": st.none() | positive,
    "offset": st.floats(0.001, 0.1), "first": st.just(1e-4), "last": st.floats(0.01, 0.02),
    "betas": st.lists(st.floats(0.01, 0.9), min_size=2, max_size=4).map(torch.tensor),
    "size": st.floats(0.0, 2.0), "warmup_steps": st.integers(0, 9),
    "blocks": st.sampled_from([1, 2, 3]),
    "full_length": st.none(), "autoencoder": st.builds(
        lambda width: MLPAutoencoder(CHUNK, VOCAB, LATENT, width=width), st.integers(2, 8)
    ),
}  # fmt: skip
OF_CLASS = {
    # Small ones: it has as many as blocks.
    (BlockwiseHead, "head"): st.sampled_from(
        [_named, lambda cond, latent: EnergyHead(cond, latent, width=4)]
    ),
    (TokenwiseAutoencoder, "autoencoder"): st.sampled_from(
        [_of_tokens, lambda *sizes: MLPAutoencoder(*sizes, width=4)]
    ),
    (NoiseSchedule, "steps"): st.none(),
    (ContextualAutoencoder, "width"): st.sampled_from([4, 8]),  # a multiple of the heads
    # Other kernels have no sharp one.
    (MeanShiftDrift, "kernel"): st.builds(GaussianKernel, positive)
    | st.builds(LaplaceKernel, positive),
    # Others refer to an autoencoder, without which they cannot be saved.
    (NoisyInput, "encoder"): st.builds(
        ChunkEmbedding, st.just(VOCAB), st.just(CHUNK), st.just(HIDDEN)
    ),
}


@st.composite
def models(draw, cls):
    """Language models of any parts; an input encoder reads the model's own autoencoder."""
    backbone = draw(_simple(Backbone))
    if cls is TokenLM:
        return TokenLM(VOCAB, backbone=backbone, tie_embeddings=draw(st.booleans()))
    autoencoder = draw(_simple(ChunkAutoencoder))
    kinds = [kind for kind in finals(InputEncoder) if kind is not NoisyInput]
    reads = draw(st.sampled_from(kinds))
    own = (VOCAB, CHUNK) if reads is ChunkEmbedding else (autoencoder,)
    encoder = reads(*own, HIDDEN)
    if draw(st.booleans()):
        encoder = NoisyInput(encoder, size=draw(share), warmup_steps=draw(few))
    return CALM(
        autoencoder=autoencoder,
        input_encoder=encoder,
        backbone=backbone,
        head=draw(_simple(Head)),
        cross_entropy_weight=draw(st.sampled_from([0.0, 0.1])),
        pull_weight=draw(st.sampled_from([0.0, 2.0])),
    )


def parts(cls):
    """Instances of one class."""
    given = {
        name: _argument(cls, parameter)
        for name, parameter in inspect.signature(cls).parameters.items()
    }
    return st.fixed_dictionaries(given).map(lambda arguments: cls(**arguments))


def _argument(cls, parameter):
    special = OF_CLASS.get((cls, parameter.name))
    if special is not None:
        return special
    annotation = parameter.annotation
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    for option in options or (annotation,):
        for kind in (*KINDS, PairwiseScore):
            if option is kind and parameter.name not in ("rules", "autoencoder"):
                shallow = _simple(kind)
                return shallow | st.none() if options else shallow
    return BY_NAME[parameter.name]


def _simple(kind):
    """Any part of a kind; of those that wrap another of their kind only simple ones."""
    if issubclass(kind, ScoringRule):
        return st.builds(EnergyScore, st.floats(0.1, 1.9))
    if kind is NoiseSchedule:
        return st.builds(calmkit.heads.CosineSchedule, st.sampled_from([100, 128]))
    return st.sampled_from(finals(kind)).flatmap(parts)
