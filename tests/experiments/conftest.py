"""A small model, trained from text to its folder once for all tests."""

import json
import types

import pytest
from precision import in_float32

from calmkit.config import parse
from calmkit.experiments import Silent, prepare, train

SMALL = [
    "--config={folder}/small.yaml", "--vocab_size=280", "--cache_dir={folder}/cache",
    "--data={folder}/text.jsonl", "--evaluation.rows=4", "--evaluation.min_context=2",
    "--evaluation.bootstrap=10", "--validation_rows=2", "--positions=8", "--accelerator=cpu",
    "--validation_fraction=0.3", "--autoencoder_training.validate_every=0", "--seed=1",
]  # fmt: skip
CONFIG = """
hidden_size: 16
chunk_size: 2
latent_size: 6
autoencoder: {init_args: {width: 12}}
autoencoder_training: {steps: 12, batch_size: 4, warmup_steps: 2, ema: 0.6}
backbone: {init_args: {depth: 1, heads: 2}}
head: {init_args: {width: 16, depth: 1}}
training: {steps: 6, batch_size: 4, warmup_steps: 1, validate_every: 3, ema: 0.5}
sample_tokens: 4
"""


class Small:
    """Texts and configs in one folder, and trainings from them."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "small.yaml").write_text(CONFIG)
        lines = [f"Line {n} tells of line {n - 1}, and of {n % 7} other lines." for n in range(60)]
        self.write_text("text.jsonl", lines)

    def write_text(self, name, lines):
        content = "\n".join(json.dumps({"text": line * 3}) for line in lines)
        (self.folder / name).write_text(content)

    def options(self, *more, output):
        config = [option.format(folder=self.folder) for option in SMALL]
        return [*config, f"--output={self.folder / output}", *more]

    def parsed(self, *more, output):
        return parse(self.options(*more, output=output), command="calmkit train")

    def train(self, *more, output):
        parsed = self.parsed(*more, output=output)
        corpus = prepare(parsed.experiment)
        record = train(parsed.experiment, corpus, config_text=parsed.text, display=Silent())
        return types.SimpleNamespace(
            folder=self.folder / output, record=record, parsed=parsed, corpus=corpus
        )


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Where small models are trained."""
    return Small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def averaged(small):
    """A model of which both stages averaged their weights."""
    with in_float32():
        return small.train(output="averaged")
