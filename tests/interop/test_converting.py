"""Published checkpoints in calmkit's format, and back: bit for bit, with their tokenizer."""

import json

import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from calmkit.autoencoders import MLPAutoencoder
from calmkit.experiments.model_folder import convert_checkpoint, load_checkpoint
from calmkit.heads import EnergyHead, GaussianHead
from calmkit.interop import load_published_autoencoder, load_published_calm
from calmkit.models import CALM
from calmkit.saving import load, save

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


def test_a_model_of_the_hub_is_converted(tmp_path, published, monkeypatch):
    ours = tmp_path / "ours"
    convert_checkpoint(published("energy"), ours)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: str(ours))
    monkeypatch.chdir(tmp_path)
    assert convert_checkpoint("owner/name", tmp_path / "back") == "the published format"
    assert_same_tensors(tensors(tmp_path / "published"), tensors(tmp_path / "back"))


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
    for folder, found in ((source, "an autoencoder"), (tmp_path / "ours", "a MLPAutoencoder")):
        with pytest.raises(ValueError, match=f"must hold a language model, .*holds {found}"):
            load_checkpoint(folder)


def test_no_path_of_a_machine_is_saved(tmp_path, published):
    convert_checkpoint(published("energy"), tmp_path / "ours")
    assert str(tmp_path) not in (tmp_path / "ours" / "config.json").read_text()


def test_what_the_format_cannot_express_is_refused_and_nothing_written(tmp_path, published):
    model = load_published_calm(published("energy"))
    other = CALM(
        autoencoder=model.autoencoder, input_encoder=model.input_encoder,
        backbone=model.backbone, head=GaussianHead(16, 5).double(),
    )  # fmt: skip
    save(other, tmp_path / "ours")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="head must be an EnergyHead"):
        convert_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert sorted(tmp_path.iterdir()) == before


def test_a_conversion_cut_short_leaves_no_half_of_a_model(tmp_path, published, monkeypatch):
    source = published("energy")

    def fail(*places):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        # The tokenizer comes last: the model is written already.
        patch.setattr("shutil.copyfile", fail)
        with pytest.raises(OSError, match="disk full"):
            convert_checkpoint(source, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_an_autoencoder_may_be_given(tmp_path, published):
    source = published("energy")
    bare = {k: v for k, v in tensors(source).items() if not k.startswith("ae_model.")}
    torch.save(bare, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match="`calmkit convert --autoencoder FOLDER`"):
        convert_checkpoint(source, tmp_path / "ours")
    beside = write(tmp_path / "autoencoder", *autoencoder_checkpoint())
    convert_checkpoint(source, tmp_path / "ours", autoencoder=beside)
    assert_same_tensors(
        dict(load(tmp_path / "ours", CALM).autoencoder.state_dict()),
        dict(load_published_autoencoder(beside).state_dict()),
    )
    with pytest.raises(ValueError, match="autoencoder must be omitted, since"):
        convert_checkpoint(tmp_path / "ours", tmp_path / "back", autoencoder=beside)


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
    with pytest.raises(ValueError, match=r"tokenizer\.json' cannot be read"):
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


def test_a_tokenizer_of_another_model_is_refused(published):
    folder = published("energy")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["more"] = 13
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="at most the 13 token ids of the model; it has 14"):
        load_checkpoint(folder)


def test_each_reader_names_the_other(tmp_path, published):
    source = published("energy")
    convert_checkpoint(source, tmp_path / "ours")
    with pytest.raises(ValueError, match=r"it is in calmkit's own, which calmkit\.load reads"):
        load_published_calm(tmp_path / "ours")
    with pytest.raises(ValueError, match="has the published format, `calmkit convert "):
        load(source)
    content = tensors(source)
    (source / "pytorch_model.bin").unlink()
    save_file({k: v.clone() for k, v in content.items()}, source / "model.safetensors")
    with pytest.raises(ValueError, match="has the published format, `calmkit convert "):
        load(source)


def test_a_folder_without_a_model_is_refused(tmp_path):
    for call in (load_checkpoint, lambda folder: convert_checkpoint(folder, tmp_path / "new")):
        with pytest.raises(ValueError, match=r"has neither model\.safetensors nor a publ"):
            call(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(published):
    folder = published("energy")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER | {"eos_token": "no"}))
    with pytest.raises(ValueError, match="tokenizer must have the end token 'no'; it has not"):
        load_checkpoint(folder)


def test_a_head_taken_out_of_a_published_model_can_be_saved(tmp_path, published):
    head = load_published_calm(published("energy")).head
    save(head, tmp_path / "head")
    again = load(tmp_path / "head", EnergyHead)
    assert_same_tensors(dict(head.state_dict()), dict(again.state_dict()))
