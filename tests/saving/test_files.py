"""The folder of a saved model: atomic, complete, readable; through the hub's mixin as well."""

import contextlib
import json
import os
import shutil
import signal
import types

import endless_saving
import pytest
import torch

import calmkit
from calmkit.data import TextTokenizer
from calmkit.disk import WriteError
from calmkit.files import replacing
from calmkit.heads import EnergyHead, GaussianHead, Head
from calmkit.saving import CannotBeSavedError, SavedModelError, load, save, saved_tokenizer
from calmkit.saving.files import read_model_file, write_model_file
from calmkit.saving.tensor_files import digest_of_tensors, write_tensors


@pytest.fixture
def head():
    return EnergyHead(3, 2, width=4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_killed_while_saving_leaves_a_whole_model(tmp_path):
    """At six moments or more; one of the models is there, whole, and never a mixture."""
    folder = tmp_path / "model"
    save(endless_saving.heads()[0], folder)
    cut_short, found = 0, set()
    files = {"model.safetensors", "config.json", "README.md"}
    # Until the kills came where it matters, between files and at different models; how long that
    # takes depends on what else the machine does.
    for moment in range(100):
        if moment >= 6 and cut_short and found == {256, 512}:
            break
        given = endless_saving.heads_in_turn, folder, tmp_path / "said"
        assert endless_saving.killed_after(0.02 + 0.031 * moment, *given) == -signal.SIGKILL
        names = {path.name for path in folder.iterdir()}
        cut_short += any(name.startswith(".partial") for name in names)
        # At most one of each is left behind, and the next save takes its place.
        assert {name.removeprefix(".partial-") for name in names} <= files
        again = load(folder, Head)
        width = again.output[0].out_features
        values = {float(value) for p in again.parameters() for value in p.detach().unique()}
        assert values == {endless_saving.VALUE_OF_WIDTH[width]}
        found.add(width)
    assert cut_short and found == {256, 512}


@pytest.mark.parametrize("number", range(1, 4))
def test_a_failed_rename_leaves_the_old_model(tmp_path, head, monkeypatch, number):
    """Whichever of the renames is the one that does not happen."""
    save(head, tmp_path)
    calls, replace = [], os.replace

    def failing(source, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError("cut")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="cut"):
        save(GaussianHead(3, 2, width=6), tmp_path)
    assert len(calls) == number
    torch.testing.assert_close(
        load(tmp_path, Head).state_dict(), head.state_dict(), rtol=0, atol=0
    )


def test_the_weights_alone_are_the_model(tmp_path, head):
    tokenizer = TextTokenizer.train(["some text"], vocab_size=257)
    save(head, tmp_path, tokenizer=tokenizer)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json"
    }  # fmt: skip
    assert saved_tokenizer(tmp_path) == (tmp_path / "tokenizer.json").read_text()
    for path in tmp_path.iterdir():
        if path.name != "model.safetensors":
            path.unlink()
    assert isinstance(load(tmp_path, Head), EnergyHead)
    assert "<|end|>" in saved_tokenizer(tmp_path)


def test_without_a_tokenizer_there_is_none(tmp_path, head):
    save(head, tmp_path)
    assert saved_tokenizer(tmp_path) == ""
    assert not (tmp_path / "tokenizer.json").exists()


def test_missing_and_damaged_files_are_named(tmp_path, head):
    with pytest.raises(SavedModelError, match=r"model\.safetensors must be there"):
        load(tmp_path)
    with pytest.raises(SavedModelError, match=r"There is no folder .*nowhere\.$"):
        load(tmp_path / "nowhere")
    for number in range(6):
        save(head, tmp_path / "comparison" / "models" / str(number))
    with pytest.raises(SavedModelError, match=r"Models are in \S*models/0, .*/4 and 1 more\."):
        load(tmp_path / "comparison")
    save(head, tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(SavedModelError, match=r"model\.safetensors is damaged"):
            load(tmp_path, Head)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.pop("output.0.weight"), "output.0.weight .* it is in the model only"),
        (lambda state: state.update(new=torch.zeros(1)), "new must .* it is in the file only"),
        (
            lambda state: state.update({"output.0.weight": torch.zeros(1, 1)}),
            r"output.0.weight must have shape \(.*, which follows .* got \(1, 1\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, head, change, text):
    save(head, tmp_path)
    file = tmp_path / "model.safetensors"
    content, state = read_model_file(file)
    change(state)
    with replacing(file) as (partial,):
        write_model_file(partial, content, state)
    with pytest.raises(SavedModelError, match=text):
        load(tmp_path, Head)


def test_every_flipped_bit_is_found(tmp_path, head):
    """In the length of the header, the header, the digests and the numbers."""
    tokenizer = TextTokenizer.train(["some text"], vocab_size=257)
    save(head, tmp_path, tokenizer=tokenizer)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    content, generator = saved_tokenizer(tmp_path), torch.Generator().manual_seed(0)
    places = torch.cat([
        torch.arange(8 * 8),
        torch.randint(8 * 8, 8 * header, (100,), generator=generator),
        torch.arange(8 * (header - 400), 8 * header, 13),
        torch.randint(8 * header, 8 * len(whole), (60,), generator=generator),
    ])  # fmt: skip
    for place in places.tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(SavedModelError, match=r"model\.safetensors"):
            load(tmp_path, Head)
        with contextlib.suppress(SavedModelError):  # numbers and their names are not its
            assert saved_tokenizer(tmp_path) == content
    file.write_bytes(whole)
    assert isinstance(load(tmp_path, Head), EnergyHead)


def test_safetensors_reads_what_is_written(tmp_path):
    """All dtypes, shapes without and with no numbers, tensors that share memory, and views."""
    from safetensors.torch import load_file

    base = torch.randn(4, 6)
    tensors = {
        "base": base, "view": base[1], "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3), "half": base.half(), "brain": base.bfloat16(),
        "whole": torch.arange(5), "bytes": torch.arange(3, dtype=torch.uint8),
        "yes": torch.tensor([True, False, True]), "eight": base.to(torch.float8_e4m3fn),
        "short": torch.arange(3, dtype=torch.int16),
    }  # fmt: skip
    write_tensors(tmp_path / "file", tensors, {"a": "b"})
    read = load_file(tmp_path / "file")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(
            read[name].view(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )
    assert digest_of_tensors(read) == digest_of_tensors(tensors)
    with pytest.raises(CannotBeSavedError, match=r"x must have a dtype .* got torch\.complex64"):
        write_tensors(tmp_path / "file", {"x": torch.zeros(1, dtype=torch.complex64)}, {})


def test_all_files_are_for_the_same_readers(tmp_path, head):
    """By the process's mask, not for the owner alone."""
    mask = os.umask(0o027)
    try:
        save(head, tmp_path, tokenizer=TextTokenizer.train(["some text"], vocab_size=257))
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_a_full_disk_leaves_the_old_model(tmp_path, head, name):
    """A device without space in the place of one of the files: none of them is replaced."""
    save(head, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / f".partial-{name}").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=f"^{tmp_path} could not be written: No space left"):
        save(GaussianHead(3, 2, width=600), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_card_tells_parts_metrics_protocol_and_config(tmp_path, head):
    save(head, tmp_path, metrics={"BrierLM": 4.5}, protocol="20 rows of a text")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: calmkit\n")
    count = sum(parameter.numel() for parameter in head.parameters())
    assert f"{count} parameters" in card
    assert "| BrierLM | 4.5 |" in card and "20 rows of a text" in card
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["class_path"] == "calmkit.heads.EnergyHead"
    assert json.loads(card.split("```json\n")[1].split("```")[0]) == config
    for name, part in head.named_children():
        assert f"| {name} | {type(part).__name__} |" in card


def test_short_names(tmp_path, head):
    calmkit.save(head, tmp_path)
    assert isinstance(calmkit.load(tmp_path, Head), EnergyHead)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = calmkit.lode


class TestHub:
    def test_a_local_folder_does(self, tmp_path, head):
        from calmkit.saving.hub import HubModel

        HubModel(head, metrics={"BrierLM": 2.0}).save_pretrained(tmp_path)
        again = HubModel.from_pretrained(tmp_path).model
        torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=0, atol=0)
        assert "| BrierLM | 2 |" in (tmp_path / "README.md").read_text()
        assert isinstance(load(tmp_path, Head), EnergyHead)

    def test_the_tokenizer_stays_with_the_model(self, tmp_path, head):
        from calmkit.saving.hub import HubModel

        tokenizer = TextTokenizer.train(["some text"], vocab_size=257)
        HubModel(head, tokenizer=tokenizer).save_pretrained(tmp_path / "first")
        HubModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
        written = [(tmp_path / n / "tokenizer.json").read_bytes() for n in ("first", "second")]
        assert written[0] == written[1]
        assert saved_tokenizer(tmp_path / "second") == saved_tokenizer(tmp_path / "first") != ""

    def test_what_is_pushed_can_be_loaded(self, tmp_path, head, monkeypatch):
        """In place of the hub a class that copies what it is given."""
        from huggingface_hub import hub_mixin

        from calmkit.saving.hub import HubModel

        class Hub:
            def __init__(self, token=None):
                pass

            def create_repo(self, repo_id, **arguments):
                return types.SimpleNamespace(repo_id=repo_id)

            def upload_folder(self, *, repo_id, folder_path, **arguments):
                shutil.copytree(folder_path, tmp_path / repo_id)

        monkeypatch.setattr(hub_mixin, "HfApi", Hub)
        HubModel(head, metrics={"BrierLM": 2.0}, protocol="few rows").push_to_hub("owner/name")
        folder = tmp_path / "owner" / "name"
        assert {path.name for path in folder.iterdir()} == {
            "README.md", "config.json", "model.safetensors"
        }  # fmt: skip
        card = (folder / "README.md").read_text()
        assert "| BrierLM | 2 |" in card and "few rows" in card and "## Config" in card
        again = HubModel.from_pretrained(folder).model
        torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=0, atol=0)

    def test_trust_is_handed_on(self, tmp_path):
        from calmkit.saving.hub import HubModel

        HubModel(MyHead(3, 2)).save_pretrained(tmp_path)
        with pytest.raises(SavedModelError, match="trust must name"):
            HubModel.from_pretrained(tmp_path)
        assert isinstance(HubModel.from_pretrained(tmp_path, trust=(__name__,)).model, MyHead)

    @pytest.mark.parametrize(
        "config", ["[" * 10**5, '{"trust": ["os"], "model": 1, "tokenizer": 2}', "[1]"]
    )
    def test_the_config_beside_the_weights_gives_no_arguments(self, tmp_path, head, config):
        from calmkit.saving.hub import HubModel

        save(head, tmp_path)
        (tmp_path / "config.json").write_text(config)
        assert isinstance(HubModel.from_pretrained(tmp_path).model, EnergyHead)

    def test_only_the_weights_of_a_repository_are_read(self, tmp_path, head, monkeypatch):
        from calmkit.saving import hub

        save(head, tmp_path)
        calls = []

        def download(repo_id, **arguments):
            calls.append((repo_id, arguments))
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.setattr(
            "huggingface_hub.hub_mixin.hf_hub_download",
            lambda **arguments: str(tmp_path / "config.json"),
        )
        again = hub.HubModel.from_pretrained("owner/name", revision="main").model
        assert isinstance(again, EnergyHead)
        ((repo_id, arguments),) = calls
        assert repo_id == "owner/name" and arguments["revision"] == "main"
        assert arguments["allow_patterns"] == ["model.safetensors"]


class MyHead(EnergyHead):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size, width=4)
