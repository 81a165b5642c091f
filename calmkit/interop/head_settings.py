"""The config of a head, and checks that the published code supports the head."""

from typing import Any

import torch
from torch import nn

from calmkit.heads import (
    CosineSchedule,
    DiffusionHead,
    EnergyHead,
    FlowHead,
    Head,
    LearnedVariance,
    NoisePrediction,
    UniformNoise,
)
from calmkit.nn import AdaptiveMLP
from calmkit.scoring import EnergyScore

from .names import Row, adaptive_rows, energy_rows
from .parts import FLOW_OFFSET, STEP_OFFSET
from .time_embedding import PublishedTimeEmbedding

__all__ = ["head_form"]


def head_form(head: Head) -> tuple[dict[str, Any], list[Row]]:
    """The head's part of the config, and the names of its tensors.

    Raises:
        ValueError: If the published code does not support the head; names the setting.
    """
    if isinstance(head, EnergyHead):
        depth, width = len(head.blocks), head.noise_embedding.out_features
        config, rows = _energy_config(head), energy_rows(depth)
    elif isinstance(head, FlowHead):
        depth, width = len(head.velocity.blocks), head.velocity.input.out_features
        _check_embedding(head.velocity, FLOW_OFFSET)
        config, rows = {}, adaptive_rows(depth, "velocity")
    elif isinstance(head, DiffusionHead):
        depth, width = len(head.network.blocks), head.network.input.out_features
        _check_diffusion(head)
        config, rows = {}, adaptive_rows(depth, "network")
    else:
        raise ValueError(
            "head must be an EnergyHead, FlowHead or DiffusionHead, as the format has no other; "
            f"got {type(head).__name__}."
        )
    _check("width", width == head.cond_size, f"the hidden size, {head.cond_size}", width)
    return {**config, "num_mlp_layers": depth}, rows


def _energy_config(head: EnergyHead) -> dict[str, Any]:
    rule = head.rule
    if not isinstance(rule, EnergyScore):
        raise ValueError(f"head must have EnergyScore as its rule to be saved; got {rule!r}.")
    _check("noise", head.noise == UniformNoise(), "UniformNoise()", head.noise)
    return {"beta": rule.alpha, "noise_size": head.noise_size, "num_samples": head.num_samples}


def _check_diffusion(head: DiffusionHead) -> None:
    _check_embedding(head.network, STEP_OFFSET)
    prediction, variance, published = head.prediction, head.variance, CosineSchedule()
    _check("prediction", prediction == NoisePrediction(), "NoisePrediction()", prediction)
    _check("variance", variance == LearnedVariance(), "LearnedVariance()", variance)
    same = torch.equal(head.schedule.betas, published.betas)
    _check("schedule", same, "CosineSchedule()", head.schedule)


def _check_embedding(network: AdaptiveMLP, offset: float) -> None:
    embedding: nn.Module = network.time_embedding
    matches = isinstance(embedding, PublishedTimeEmbedding) and embedding.offset == offset
    rule = f"PublishedTimeEmbedding(width, offset={offset}), set before training,"
    _check("time_embedding", matches, rule, type(embedding).__name__)


def _check(name: str, fulfilled: bool, rule: str, value: object) -> None:
    if not fulfilled:
        raise ValueError(
            f"head must have {rule} as its {name} to be saved: the published code has no other; "
            f"got {value}."
        )
