"""The warm-up of a run that is shorter than its preset's."""

import pytest

from calmkit.config import ConfigError, parse, parse_comparison


def warmups(*options):
    experiment = parse(list(options), command="calmkit train").experiment
    return experiment.autoencoder_training.warmup_steps, experiment.training.warmup_steps


@pytest.mark.parametrize(
    ("options", "autoencoder", "model"),
    [
        ([], 40, 30),
        (["--training.steps", "200"], 40, 15),
        (["--training.steps", "5"], 40, 0),
        (['--training={"steps": 100}'], 40, 8),
        (["--training.steps", "4000"], 40, 30),
        (["--autoencoder_training.steps", "8"], 1, 30),
        (["--training.steps", "5", "--training.warmup_steps", "5"], 40, 5),
        # The presets' own steps and warm-ups are as they say.
        (["--config", "cpu"], 40, 50),
        (["--config", "cpu", "--training.steps", "100"], 40, 10),
    ],
)
def test_a_shorter_run_keeps_the_share(options, autoencoder, model):
    assert warmups(*options) == (autoencoder, model)


def test_a_file_sets_steps_and_warmups_too(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("training: {steps: 200}\n")
    assert warmups("--config", str(file)) == (40, 15)
    file.write_text("training: {steps: 200, warmup_steps: 50}\n")
    assert warmups("--config", str(file)) == (40, 50)
    with pytest.raises(ConfigError) as error:
        warmups("--config", str(file), "--training.steps", "20")
    assert "training.warmup_steps must be at most steps = 20" in str(error.value)
    assert "got 50. Lower it, or raise steps." in str(error.value)


def test_each_variant_has_its_own():
    comparison = parse_comparison(["--variants.flow.training.steps", "40"])
    steps = {v.name: v.experiment.training.warmup_steps for v in comparison.variants}
    assert steps == {"energy": 30, "flow": 3, "diffusion": 30}


def test_wrong_steps_are_refused_as_such():
    with pytest.raises(ConfigError, match=r"training\.steps must be a whole number"):
        warmups("--training.steps", "few")
