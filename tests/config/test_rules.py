"""A config swaps the scoring rule of a head."""

import pytest
import torch
import yaml
from rule_instances import RULES
from train_configs import message, train

from calmkit.distributions import DiagonalGaussian
from calmkit.saving.describing import describe

ALL = sum(RULES.values(), ())


class TestRules:
    @pytest.mark.parametrize("rule", ALL, ids=str)
    def test_a_config_swaps_the_rule_of_the_energy_head(self, rule, tmp_path):
        file = tmp_path / "my.yaml"
        head = {"class_path": "EnergyHead", "init_args": {"rule": describe(rule), "width": 8}}
        file.write_text(yaml.safe_dump({"head": head}))
        first = train("--config", str(file))
        (tmp_path / "effective.yaml").write_text(first.text)
        again = train("--config", str(tmp_path / "effective.yaml"))
        for parsed in (first, again):
            built = parsed.experiment.head(4, 3)
            assert built.rule == rule
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
