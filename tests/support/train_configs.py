"""What the tests of configs share: `calmkit train` with options, a small model."""

import pytest

from calmkit.config import ConfigError, check_parts, parse


def train(*options):
    return parse(options, command="calmkit train")


def message(*options):
    with pytest.raises(ConfigError) as caught:
        check_parts(train(*options).experiment)
    return str(caught.value)


MODEL = {
    "vocab_size": 300, "chunk_size": 2, "latent_size": 8, "hidden_size": 16,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 16}},
    "backbone": {"class_path": "TransformerBackbone", "init_args": {"depth": 1, "heads": 2}},
    "head": {"class_path": "FlowHead", "init_args": {"width": 16, "depth": 1}},
}  # fmt: skip
