"""`calmkit.load("owner/name")`, without a network."""

import copy
import sys

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from published_files import autoencoder_checkpoint, write
from safetensors.torch import save_file

import calmkit
from calmkit.backbones import TransformerBackbone
from calmkit.data import TextTokenizer
from calmkit.heads import EnergyHead, Head
from calmkit.models import TokenLM
from calmkit.saving import SavedAutoencoder, SavedModelError, folder_of
from calmkit.saving.stored_tokenizer import StoredTokenizer


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub with one model; what it is asked for."""
    calmkit.save(EnergyHead(3, 2, width=4), tmp_path / "stored")
    calls = []

    def download(repo_id, *, allow_patterns, revision):
        calls.append((repo_id, allow_patterns, revision))
        if repo_id != "owner/name":
            raise LocalEntryNotFoundError("offline\nmore")
        return str(tmp_path / "stored")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_model_of_the_hub_is_loaded(asked, tmp_path):
    here = calmkit.load(tmp_path / "stored", Head)
    there = calmkit.load("owner/name", Head, revision="v1")
    torch.testing.assert_close(there.state_dict(), here.state_dict(), rtol=0, atol=0)
    assert asked == [("owner/name", ["model.safetensors"], "v1")]


@pytest.mark.parametrize(
    "place", ["stored", "stored/lost", "./owner/name", "../owner/name", "a/b/c", "name", "/no/one"]
)
def test_a_path_asks_no_server(asked, place):
    assert str(folder_of(place)) in (place, place.removeprefix("./"))
    assert asked == []


def test_a_folder_hides_a_repository(asked, tmp_path):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(SavedModelError, match=r"model.safetensors must be there"):
        calmkit.load("owner/name", Head)
    assert asked == []


def test_what_the_hub_answers_is_told(asked):
    with pytest.raises(SavedModelError, match=r"other/one must be .* the hub answers: offline$"):
        calmkit.load("other/one", Head)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_in_the_published_format_is_told_how_to_convert(asked, tmp_path, name):
    """Only `model.safetensors` is downloaded, whatever else there is."""
    (tmp_path / "stored" / "model.safetensors").unlink()
    if name == "model.safetensors":
        save_file({"weight": torch.zeros(2)}, tmp_path / "stored" / name)
    with pytest.raises(SavedModelError) as caught:
        calmkit.load("owner/name", Head)
    said = str(caught.value)
    assert said.startswith("owner/name must be a model in calmkit's format")
    assert "`hf download owner/name --local-dir PUBLISHED` and `calmkit convert" in said


def test_a_folder_in_the_published_format_is_told_how_to_convert(tmp_path):
    config, tensors = autoencoder_checkpoint()
    folder = write(tmp_path / "ae", config, tensors)
    with pytest.raises(
        SavedModelError, match=f"calmkit convert --checkpoint {folder} --output NEW"
    ):
        SavedAutoencoder.of_folder(folder)


def test_the_missing_library_is_told(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SavedModelError, match=r"pip install 'calmkit\[hf\]'"):
        calmkit.load("owner/name", Head)


class TestTokenizer:
    """The tokenizer that a language model was saved with."""

    @pytest.fixture
    def saved(self, tmp_path):
        tokenizer = TextTokenizer.train(["some words of some text"], vocab_size=260)
        model = TokenLM(260, backbone=TransformerBackbone(8, depth=1, heads=2))
        calmkit.save(model, tmp_path / "with", tokenizer=tokenizer)
        calmkit.save(model, tmp_path / "without")
        return tmp_path

    def test_comes_with_the_model_and_stays_with_it(self, saved):
        model = calmkit.load(saved / "with")
        (one,) = model.generate("some", max_new_tokens=3)
        assert one.text == model.tokenizer.decode(one.tokens)
        assert model.tokenizer.decode(model.tokenizer.encode("text")) == "text"
        calmkit.save(model, saved / "again")
        names = ("with", "again")
        first, again = ((saved / name / "tokenizer.json").read_text() for name in names)
        assert first == again
        copied = copy.deepcopy(model).generate("some", max_new_tokens=3)
        assert copied[0].text is not None

    def test_is_absent_if_the_model_has_none(self, saved):
        assert calmkit.load(saved / "without").tokenizer is None

    def test_is_read_when_it_is_used(self, saved):
        tokenizer = StoredTokenizer("{", "somewhere")
        assert repr(tokenizer) == "StoredTokenizer(somewhere)"
        with pytest.raises(SavedModelError, match=r"somewhere: the tokenizer .* cannot be read"):
            tokenizer.encode("a")
