"""Repository ids: what is asked of the hub, and what is said when it fails. No network."""

import builtins
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from published_files import autoencoder_checkpoint, write

from calmkit.interop import CheckpointNotFoundError, load_published_autoencoder


def use(monkeypatch, download):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_only_config_and_weights_are_downloaded(tmp_path, monkeypatch):
    config, tensors = autoencoder_checkpoint()
    folder, asked = write(tmp_path, config, tensors), []

    def download(repo_id, *, allow_patterns):
        asked.append(repo_id)
        names = ["config.json", "pytorch_model.bin", "modeling.py", "train.sh", "model.pkl"]
        kept = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns)
        assert list(kept) == ["config.json", "pytorch_model.bin"]
        return str(folder)

    use(monkeypatch, download)
    model = load_published_autoencoder("owner/name.of-it")
    assert asked == ["owner/name.of-it"]
    assert torch.equal(model.squeeze.bias, tensors["encoder.squeeze_layer.bias"])


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("offline\nmore"), HFValidationError("offline"), OSError("offline")],
)
def test_errors_of_the_hub_are_translated(monkeypatch, error):
    def download(repo_id, *, allow_patterns):
        raise error

    use(monkeypatch, download)
    with pytest.raises(
        CheckpointNotFoundError, match=r"'owner/name' is not a folder, .*: offline$"
    ):
        load_published_autoencoder("owner/name")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointNotFoundError, match=r"pip install 'calmkit\[hf\]'"):
        load_published_autoencoder("owner/name")


def test_a_folder_needs_no_huggingface_hub(tmp_path, monkeypatch):
    config, tensors = autoencoder_checkpoint()
    write(tmp_path / "owner" / "name", config, tensors)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    for source in ("owner/name", tmp_path / "owner" / "name"):
        assert load_published_autoencoder(source).vocab_size == 13


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["/no/such", "./a/b", "name", "a/b/c", "C:\\models\\a", "a file"])
def test_what_is_no_repository_id_is_never_asked_for(tmp_path, monkeypatch, name, kind):
    def download(repo_id, *, allow_patterns):
        raise AssertionError(repo_id)

    use(monkeypatch, download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    with pytest.raises(CheckpointNotFoundError, match=r"must be a folder with config\.json"):
        load_published_autoencoder(kind(name))


def test_a_path_object_is_never_a_repository_id(tmp_path, monkeypatch):
    use(monkeypatch, lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointNotFoundError, match=r"must be a folder with config\.json"):
        load_published_autoencoder(Path("owner/name"))


def test_weights_without_safetensors_installed_name_the_extra(tmp_path, monkeypatch):
    config, tensors = autoencoder_checkpoint()
    folder = write(tmp_path, config, tensors, "safetensors")
    real = builtins.__import__

    def refuse(name, *arguments, **named):
        if name.partition(".")[0] == "safetensors":
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r"safetensors must be read with .*calmkit\[hf\]"):
        load_published_autoencoder(folder)
