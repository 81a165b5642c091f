import pytest
import torch
import yaml

from calmkit.config import build
from calmkit.data import TextTokenizer
from calmkit.experiments.model_folder import load_checkpoint, save_checkpoint
from calmkit.saving import save

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
        tmp_path / "m", model=model, tokenizer=tokenizer, config_text=yaml.safe_dump(CONFIG),
        metrics={"BrierLM": 3.0}, protocol="few rows",
    )  # fmt: skip
    return model, tmp_path / "m"


def test_round_trip(saved):
    model, folder = saved
    loaded = load_checkpoint(folder)
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.model.training
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("täxt")) == "täxt"
    assert loaded.config == folder / "config.yaml"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "config.yaml", "model.safetensors", "tokenizer.json"
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "| BrierLM | 3 |" in card and "few rows" in card


def test_only_the_weights_are_needed(saved):
    """They hold the tokenizer; what the other files say is for readers."""
    model, folder = saved
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            path.unlink()
    loaded = load_checkpoint(folder)
    assert loaded.config is None and loaded.tokenizer.end_id == 0
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_missing_and_damaged_weights_are_refused(saved):
    _, folder = saved
    file = folder / "model.safetensors"
    weights = file.read_bytes()
    file.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_checkpoint(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"it has neither model\.safetensors nor a published"):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=r"checkpoint .*nowhere must be a folder written by"):
        load_checkpoint(folder / "nowhere")
    (folder / "models" / "energy").mkdir(parents=True)
    (folder / "models" / "energy" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"neither .*\. Models are in \S*models/energy\.$"):
        load_checkpoint(folder)


def test_a_damaged_tokenizer_is_named(saved):
    model, folder = saved

    class Broken:
        def save(self, path):
            path.write_text("{}")

    save(model, folder, tokenizer=Broken())
    with pytest.raises(ValueError, match="the tokenizer inside the weights cannot be read"):
        load_checkpoint(folder)


def test_the_config_is_not_read(saved):
    """It names classes, and a model is built without it; see tests/cli/test_hostile_folders.py."""
    _, folder = saved
    (folder / "config.yaml").write_text("a: [")
    assert load_checkpoint(folder).config == folder / "config.yaml"
