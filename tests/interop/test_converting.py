"""Published checkpoints in calmkit's format, and back: bit for bit, with their tokenizer."""

import json

import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from calmkit.autoencoders import MLPAutoencoder, StandardizedAutoencoder
from calmkit.comparison.checkpoint import convert_checkpoint, load_checkpoint
from calmkit.heads import EnergyHead
from calmkit.interop import load_published_calm
from calmkit.models import CALM
from calmkit.saving import SavedModelError, load, save

KINDS = ["energy", "flow", "diffusion"]
TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}


@pytest.fixture
def published(tmp_path):
    """A language model and its tokenizer, one letter a token, as the published code has them."""

    def make(kind, dtype=torch.float64, **changes):
        folder = write(tmp_path / "published", *calm_checkpoint(kind, dtype=dtype, **changes))
        vocab = {letter: n for n, letter in enumerate(["<unk>", "</s>", *"abcdefghijk"])}
        tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.decoder = decoders.Fuse()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
        return folder

    return make


def tensors(folder):
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_bitwise(tmp_path, published, kind, dtype):
    source = published(kind, dtype, rope_scaling={"rope_type": "linear", "factor": 2.0})
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert convert_checkpoint(source, ours) == "calmkit's format"
    assert convert_checkpoint(ours, back) == "the published format"
    assert_same_tensors(tensors(source), tensors(back))
    first, second = (json.loads((one / "config.json").read_text()) for one in (source, back))
    for key in second.keys() & first.keys() - {"ae_path", "rope_scaling"}:
        assert first[key] == second[key], key
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (back / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_all_three_write_the_same_text(tmp_path, published, kind):
    source = published(kind)
    convert_checkpoint(source, tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "back")
    written = []
    for folder in (source, tmp_path / "ours", tmp_path / "back"):
        loaded = load_checkpoint(folder)
        assert loaded.config is None and not loaded.model.training
        assert loaded.tokenizer.encode("bad") == [3, 2, 5] and loaded.tokenizer.end_id == 1
        assert loaded.tokenizer.decode([3, 2, 5, 1]) == "bad"
        assert loaded.tokenizer.vocab_size == loaded.model.vocab_size == 13
        generator = torch.Generator().manual_seed(0)
        written.append(loaded.model.generate([[3, 2]], max_new_tokens=6, generator=generator))
    assert written[0] == written[1] == written[2]


def test_an_autoencoder_alone(tmp_path):
    source = write(tmp_path / "a", *autoencoder_checkpoint(rms_norm_eps=1e-5))
    convert_checkpoint(source, tmp_path / "ours")
    again = load(tmp_path / "ours", MLPAutoencoder)
    assert again.latent_dropout == 0.1 and again.kl_weight == 0.002
    convert_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert_same_tensors(tensors(source), tensors(tmp_path / "back"))
    with pytest.raises(SavedModelError, match="must hold a CALM; it holds a MLPAutoencoder"):
        load_checkpoint(tmp_path / "ours")


def test_no_path_of_a_machine_is_saved(tmp_path, published):
    convert_checkpoint(published("energy"), tmp_path / "ours")
    assert str(tmp_path) not in (tmp_path / "ours" / "config.json").read_text()


def test_what_the_format_cannot_express_is_refused_and_nothing_written(tmp_path, published):
    model = load_published_calm(published("energy"))
    standardized = CALM(
        autoencoder=StandardizedAutoencoder(model.autoencoder),
        input_encoder=model.input_encoder, backbone=model.backbone, head=model.head,
    )  # fmt: skip
    save(standardized, tmp_path / "ours")
    with pytest.raises(ValueError, match="autoencoder must be an MLPAutoencoder"):
        convert_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_nothing_is_written_over(tmp_path, published):
    source = published("energy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="folder must be new or empty"):
        convert_checkpoint(source, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_published_model_without_tokenizer_is_told_what_is_missing(tmp_path):
    folder = write(tmp_path / "m", *calm_checkpoint("energy"))
    with pytest.raises(ValueError, match=r"must hold a tokenizer beside the .*tokenizer\.json"):
        load_checkpoint(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="its tokenizer cannot be read"):
        load_checkpoint(folder)


def test_code_in_a_tokenizers_folder_is_not_run(published, tmp_path):
    folder = published("energy")
    content = TOKENIZER | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    try:
        load_checkpoint(folder)
    except ValueError:
        pass
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_without_an_end_is_refused(published):
    folder = published("energy")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER | {"eos_token": None}))
    with pytest.raises(ValueError, match="tokenizer must have an end token"):
        load_checkpoint(folder)


def test_a_head_taken_out_of_a_published_model_can_be_saved(tmp_path, published):
    head = load_published_calm(published("energy")).head
    save(head, tmp_path / "head")
    again = load(tmp_path / "head", EnergyHead)
    assert_same_tensors(dict(head.state_dict()), dict(again.state_dict()))
