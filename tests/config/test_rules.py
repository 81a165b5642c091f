"""A config swaps the scoring rule of a head."""

import pytest
import torch
import yaml
from train_configs import message, train

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import (
    ChunkedScore,
    DawidSebastianiScore,
    EnergyScore,
    KernelScore,
    LaplaceKernel,
    MarginalCRPS,
    SampledTarget,
    SlicedCRPS,
    SpreadWeighted,
    VariogramScore,
    WeightedSum,
)

RULES = {
    "EnergyScore": ({"alpha": 1.3}, EnergyScore(1.3)),
    "KernelScore": (
        {"kernel": {"class_path": "LaplaceKernel", "init_args": {"bandwidths": [0.5, 2.0]}}},
        KernelScore(LaplaceKernel([0.5, 2.0])),
    ),
    "SlicedCRPS": ({"num_directions": 3}, SlicedCRPS(3)),
    "MarginalCRPS": ({}, MarginalCRPS()),
    "VariogramScore": ({"p": 1.0}, VariogramScore(1.0)),
    "DawidSebastianiScore": ({}, DawidSebastianiScore()),
    "WeightedSum": (
        {"rules": [{"class_path": "EnergyScore"}, {"class_path": "VariogramScore"}],
         "weights": [1.0, 0.5]},
        WeightedSum([EnergyScore(), VariogramScore()], [1.0, 0.5]),
    ),
    "SpreadWeighted": (
        {"rule": {"class_path": "EnergyScore"}, "weight": 0.8},
        SpreadWeighted(EnergyScore(), 0.8),
    ),
    "SampledTarget": (
        {"rule": {"class_path": "EnergyScore"}, "num_targets": 4},
        SampledTarget(EnergyScore(), 4),
    ),
    "ChunkedScore": (
        {"rule": {"class_path": "EnergyScore"}, "positions": 8},
        ChunkedScore(EnergyScore(), 8),
    ),
}  # fmt: skip


class TestRules:
    @pytest.mark.parametrize("name", RULES)
    def test_a_config_swaps_the_rule_of_the_energy_head(self, name, tmp_path):
        arguments, want = RULES[name]
        file = tmp_path / "my.yaml"
        rule = {"class_path": name, "init_args": arguments}
        head = {"class_path": "EnergyHead", "init_args": {"rule": rule, "width": 8}}
        file.write_text(yaml.safe_dump({"head": head}))
        first = train("--config", str(file))
        (tmp_path / "effective.yaml").write_text(first.text)
        again = train("--config", str(tmp_path / "effective.yaml"))
        for parsed in (first, again):
            built = parsed.experiment.head(4, 3)
            assert built.rule == want
            built.loss(torch.zeros(2, 4), DiagonalGaussian.point_mass(torch.zeros(2, 3)))

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["KernelScore"], ["missing: head.rule.kernel of KernelScore"]),
            (["EnergyScor"], ["head.rule: EnergyScor is not", "mean: EnergyScore"]),
            (["EnergyHead"], ["head.rule: EnergyHead is not", "allowed: ChunkedScore, "]),
            (["KernelScore", "--head.rule.kernel", "LaplaceKernal"], ["mean: LaplaceKernel"]),
            (["KernelScore", "--head.rule.kernel", "LaplaceKernel",
              "--head.rule.kernel.bandwidths", "-1"], ["bandwidths must be positive", "got -1"]),
            (["SlicedCRPS", "--head.rule.num_directions", "0"],
             ["num_directions must be at least 1; got 0"]),
            (["WeightedSum", "--head.rule.rules", "[]"], ["rules must hold at least one rule"]),
        ],
    )  # fmt: skip
    def test_mistakes(self, options, parts):
        said = message("--head.rule", *options)
        for part in parts:
            assert part in said
