"""`--autoencoder FOLDER`: what the saved autoencoder determines, and what contradicts it."""

import pytest
import torch
import yaml
from published_files import autoencoder_checkpoint, calm_checkpoint, write

import calmkit
from calmkit.autoencoders import (
    ChunkAutoencoder,
    ContextualAutoencoder,
    MLPAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.config import ConfigError, build, parse, parse_comparison, parse_text
from calmkit.experiments import convert_checkpoint
from calmkit.interop import load_published_autoencoder, load_published_calm
from calmkit.saving import SavedAutoencoder, UntrustedCodeError


def parsed(*options, **more):
    return parse(list(options), command="calmkit train", **more)


def message(*options):
    with pytest.raises(ConfigError) as caught:
        parsed(*options)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    autoencoder = MLPAutoencoder(3, 40, 5, width=8, kl_weight=0.01)
    calmkit.save(StandardizedAutoencoder(autoencoder), tmp_path / "saved")
    return tmp_path / "saved"


def test_sizes_class_and_arguments_are_those_of_the_saved_one(folder):
    got = parsed("--autoencoder", str(folder))
    experiment, values = got.experiment, yaml.safe_load(got.text)
    sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
    assert sizes == (3, 40, 5) and experiment.autoencoder_from == folder
    part = values["autoencoder"]
    assert part["class_path"] == "calmkit.autoencoders.MLPAutoencoder"
    assert part["init_args"]["width"] == 8 and part["init_args"]["kl_weight"] == 0.01
    built = experiment.autoencoder(*sizes)
    assert {n: p.shape for n, p in built.state_dict().items()} == {
        n: p.shape for n, p in MLPAutoencoder(3, 40, 5, width=8).state_dict().items()
    }
    # The effective config gives the same, and builds the whole model.
    assert parse_text(got.text).text == got.text
    assert build(values).autoencoder.autoencoder.embedding.embedding_dim == 8


def test_one_of_the_hub_can_be_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: str(folder))
    monkeypatch.chdir(tmp_path)
    got = parsed("--autoencoder", "owner/name")
    assert got.experiment.autoencoder_from == folder and got.experiment.chunk_size == 3
    assert parse_text(got.text).text == got.text


def test_no_argument_of_another_source_shows_through(folder, tmp_path):
    (tmp_path / "wide.yaml").write_text("autoencoder: {init_args: {ff_size: 99, depth: 4}}")
    got = parsed("--config", str(tmp_path / "wide.yaml"), "--autoencoder", str(folder))
    arguments = yaml.safe_load(got.text)["autoencoder"]["init_args"]
    assert arguments["ff_size"] is None and arguments["depth"] == 1


def test_a_model_and_another_class_can_be_named(tmp_path):
    model = build(yaml.safe_load(parsed("--vocab_size=40", "--hidden_size=16").text))
    calmkit.save(model, tmp_path / "model")
    got = parsed("--autoencoder", str(tmp_path / "model"))
    assert got.experiment.vocab_size == 40 and got.experiment.chunk_size == 2
    calmkit.save(ContextualAutoencoder(3, 40, 5, width=8, depth=1, heads=2), tmp_path / "other")
    got = parsed("--autoencoder", str(tmp_path / "other"))
    assert "ContextualAutoencoder" in got.text and got.experiment.chunk_size == 3


def test_a_file_may_name_it_and_what_comes_later_counts(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named.yaml").write_text("autoencoder: saved")  # relative, without a slash
    assert parsed("--config", "named.yaml").experiment.autoencoder_from == folder
    (tmp_path / "class.yaml").write_text("autoencoder: ContextualAutoencoder")
    got = parsed("--config", "named.yaml", "--config", "class.yaml")
    assert got.experiment.autoencoder_from is None and got.experiment.chunk_size == 2
    assert "ContextualAutoencoder" in got.text
    got = parsed("--config", "class.yaml", "--config", "named.yaml")
    assert got.experiment.autoencoder_from == folder
    for own in ("MLPAutoencoder", "{class_path: MLPAutoencoder, init_args: {width: 9}}"):
        got = parsed("--config", "named.yaml", "--autoencoder", own)
        assert got.experiment.autoencoder_from is None
    got = parsed("--config", "named.yaml", "--autoencoder_from", "null")
    assert got.experiment.autoencoder_from is None
    (tmp_path / "args.yaml").write_text("autoencoder: {init_args: {width: 9}}")
    assert "autoencoder must name a class to replace" in message(
        "--config", "named.yaml", "--config", "args.yaml"
    )


@pytest.mark.parametrize(
    "option, said",
    [
        ("--chunk_size=2", "chunk_size must be 3, that of the autoencoder in"),
        ("--vocab_size=41", "vocab_size must be 40, that of the autoencoder in"),
        ("--latent_size=6", "latent_size must be 5, that of the autoencoder in"),
        ("--autoencoder.width=9", "--autoencoder.width must be left out"),
    ],
)
def test_what_contradicts_it_is_refused_by_name(folder, option, said):
    assert said in message("--autoencoder", str(folder), option)
    assert parsed("--autoencoder", str(folder), "--chunk_size=3").experiment.chunk_size == 3


def test_a_folder_without_an_autoencoder_is_refused(folder, tmp_path):
    for key in ("autoencoder", "autoencoder_from"):
        said = message(f"--{key}=./no")
        assert said.startswith(f"{key}: ")
        assert "a saved model is a folder with model.safetensors" in said
    calmkit.save(build_token_lm(), tmp_path / "tokens")
    assert "must hold an autoencoder, alone or in a CALM; it holds a TokenLM" in message(
        f"--autoencoder={tmp_path / 'tokens'}"
    )
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    assert "is damaged" in message(f"--autoencoder={folder}")


def build_token_lm():
    values = yaml.safe_load(parsed("--vocab_size=40", "--hidden_size=16").text)
    return build({**values, "model": "token_lm", "chunk_size": 1})


@pytest.mark.parametrize("kind", ["autoencoder", "energy"])
def test_a_published_one_is_converted_first(tmp_path, kind):
    if kind == "autoencoder":
        published = write(tmp_path / "published", *autoencoder_checkpoint())
        want = load_published_autoencoder(published)
    else:
        published = write(tmp_path / "published", *calm_checkpoint(kind))
        want = load_published_calm(published).autoencoder
    assert "`calmkit convert " in message(f"--autoencoder={published}")
    convert_checkpoint(published, tmp_path / "converted")
    experiment = parsed(f"--autoencoder={tmp_path / 'converted'}").experiment
    sizes = experiment.chunk_size, experiment.vocab_size, experiment.latent_size
    got = experiment.autoencoder(*sizes)
    SavedAutoencoder.of_folder(tmp_path / "converted").fill(got)
    torch.testing.assert_close(got.state_dict(), want.state_dict(), rtol=0, atol=0)


class OwnAutoencoder(MLPAutoencoder):
    """A user's."""

    def __init__(self, chunk_size: int, vocab_size: int, latent_size: int, *, width: int = 4):
        super().__init__(chunk_size, vocab_size, latent_size, width=width)


def test_code_outside_calmkit_needs_trust(tmp_path):
    assert issubclass(OwnAutoencoder, ChunkAutoencoder)
    calmkit.save(OwnAutoencoder(2, 40, 5, width=8), tmp_path / "own")
    with pytest.raises(UntrustedCodeError, match="trust must name every package"):
        parsed("--autoencoder", str(tmp_path / "own"))
    got = parsed("--autoencoder", str(tmp_path / "own"), trust=("test_named_autoencoder",))
    assert type(got.experiment.autoencoder(2, 40, 5)).__name__ == "OwnAutoencoder"


def test_in_a_comparison_for_all_or_for_one(folder, tmp_path):
    variants = {
        "named": {},
        "own": {"autoencoder": "MLPAutoencoder", "chunk_size": 2},
        "tokens": {"model": "token_lm", "chunk_size": 1},
    }
    config = {"autoencoder": str(folder), "variants": variants}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(config))
    got = parse_comparison([f"--config={tmp_path / 'all.yaml'}"])
    found = {one.name: one.experiment for one in got.variants}
    assert [one.autoencoder_from for one in found.values()] == [folder, None, None]
    assert [one.chunk_size for one in found.values()] == [3, 2, 1]
    assert parse_comparison(["--config", written(tmp_path, got.text)]).text == got.text

    one = f"{{own: {{}}, named: {{autoencoder: {folder}}}}}"
    found = {one.name: one.experiment for one in parse_comparison(["--variants", one]).variants}
    assert [one.autoencoder_from for one in found.values()] == [None, folder]
    assert [one.chunk_size for one in found.values()] == [2, 3]


def written(folder, text):
    (folder / "effective.yaml").write_text(text)
    return str(folder / "effective.yaml")


def test_not_with_a_model_to_fine_tune(folder, tmp_path):
    saved = parsed("--autoencoder", str(folder))
    model = build(yaml.safe_load(saved.text))
    calmkit.save(model, tmp_path / "model")
    (tmp_path / "model" / "config.yaml").write_text(saved.text)
    tune = [f"--checkpoint={tmp_path / 'model'}", "--finetune=pairs.jsonl"]
    # The saved config says where its autoencoder came from; it is in the model now.
    assert parsed(*tune).experiment.autoencoder_from is None
    assert parsed(*tune).experiment.chunk_size == 3
    assert "autoencoder_from must be left out with checkpoint" in message(
        *tune, f"--autoencoder={folder}"
    )


def test_the_folder_is_not_written_over(folder):
    assert "output must be another folder than autoencoder_from, which is kept" in message(
        f"--autoencoder={folder}", f"--output={folder}/../saved"
    )


def test_weights_are_read_in_the_precision_of_the_model(folder):
    saved = calmkit.load(folder, StandardizedAutoencoder).bfloat16()
    calmkit.save(saved, folder)
    new = MLPAutoencoder(3, 40, 5, width=8)
    SavedAutoencoder.of_folder(folder).fill(new)
    assert new.embedding.weight.dtype == torch.float64
    torch.testing.assert_close(
        new.embedding.weight, saved.autoencoder.embedding.weight, check_dtype=False
    )
