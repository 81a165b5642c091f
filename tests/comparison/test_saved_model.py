import pytest
import torch
import yaml

from calmkit.comparison.checkpoint import load_checkpoint, save_checkpoint
from calmkit.config import build
from calmkit.data import TextTokenizer

CONFIG = {
    "vocab_size": 257, "chunk_size": 2, "latent_size": 8, "hidden_size": 16,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 16}},
    "backbone": {"class_path": "TransformerBackbone", "init_args": {"depth": 1, "heads": 2}},
    "head": {"class_path": "EnergyHead", "init_args": {"width": 16, "depth": 1}},
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    model = build(CONFIG)
    model.autoencoder.shift.fill_(0.25)  # a buffer: it must travel too
    tokenizer = TextTokenizer.train(["some text"], vocab_size=257)
    save_checkpoint(
        tmp_path / "m", model=model, tokenizer=tokenizer, config_text=yaml.safe_dump(CONFIG)
    )
    return model, tmp_path / "m"


def test_round_trip(saved):
    model, folder = saved
    loaded = load_checkpoint(folder)
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.model.training
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("täxt")) == "täxt"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "model.safetensors", "tokenizer.json"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(saved, name):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"written by `calmkit train`; it has no {name}"):
        load_checkpoint(folder)


def test_damaged_weights_and_another_config_are_refused(saved):
    _, folder = saved
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="damaged or belongs to another config"):
        load_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "hidden_size": 32}))
    with pytest.raises(ValueError, match="damaged or belongs to another config"):
        load_checkpoint(folder)
