"""Every way in which a checkpoint can be wrong is refused by file and key; no code is run."""

import json
import os
import random
import re
from pathlib import Path

import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.interop import (
    CheckpointFormatError,
    load_published_autoencoder,
    load_published_calm,
)


def refused(folder, match, load=load_published_calm):
    with pytest.raises(CheckpointFormatError, match=match):
        load(folder)


def energy(folder, *, form="bin", drop=(), add=None, **changes):
    """An energy checkpoint with some keys dropped, added, or a config changed."""
    config, tensors = calm_checkpoint("energy")
    tensors = {k: v for k, v in tensors.items() if k not in drop} | (add or {})
    return write(folder, config | changes, tensors, form)


@pytest.mark.parametrize("form", ["bin", "safetensors", "bin shards", "safetensors shards"])
@pytest.mark.parametrize(
    "key",
    [
        "transformer.layers.1.self_attn.k_proj.weight",
        "embed_proj.3.bias",
        "ae_model.encoder.squeeze_layer.weight",
        "ae_model.encoder.encoder_layers.0.mlp.gate_proj.weight",
        "ae_model.decoder.decoder_layers.3.layernorm.weight",
    ],
)
def test_missing_key(tmp_path, form, key):
    # The published name, in the file that would hold it.
    refused(energy(tmp_path, form=form, drop=[key]), rf"{re.escape(key)} must be there; it is mis")


def test_missing_from_both_duplicates(tmp_path):
    keys = [f"{head}.mlp_blocks.0.in_ln.bias" for head in ("generative_head", "mlp_generator")]
    refused(energy(tmp_path, drop=keys), r"generative_head\.mlp_blocks\.0\.in_ln\.bias must be th")


@pytest.mark.parametrize(
    "key",
    [
        "transformer.layers.3.input_layernorm.weight",
        "generative_head.mlp_blocks.3.in_ln.weight",
        "ae_model.encoder.extra.weight",
        "lm_head.weight",
    ],
)
def test_unknown_key(tmp_path, key):
    folder = energy(tmp_path, add={key: torch.zeros(16)})
    refused(folder, rf"pytorch_model\.bin: {re.escape(key)} must not be there.*\(1 unknown")


def test_unknown_key_of_an_autoencoder(tmp_path):
    config, tensors = autoencoder_checkpoint()
    folder = write(tmp_path, config, tensors | {"encoder.more": torch.zeros(1)})
    refused(folder, r"encoder\.more must not be there", load_published_autoencoder)


def test_the_fifth_of_four_layers_is_unknown(tmp_path):
    config, tensors = autoencoder_checkpoint(num_encoder_layers=5)
    folder = write(tmp_path, config | {"num_encoder_layers": 4}, tensors)
    refused(folder, r"encoder_layers\.4\..* must not be there", load_published_autoencoder)


@pytest.mark.parametrize(
    "key, shape, wanted",
    [
        ("transformer.embed_tokens.weight", (14, 16), "(13, 16)"),
        ("generative_head.mlp_blocks.1.linears.0.weight", (16, 31), "(16, 32)"),
        ("mlp_generator.final_layer.linears.2.bias", (6,), "(5,)"),
        ("embed_proj.0.bias", (32, 1), "(32,)"),
        ("ae_model.encoder.hidden_to_latent.weight", (12, 6), "(10, 6)"),
    ],
)
def test_shape(tmp_path, key, shape, wanted):
    folder = energy(tmp_path, add={key: torch.zeros(shape)})
    match = rf"{re.escape(key)} must have shape {re.escape(wanted)}.*got {re.escape(str(shape))}"
    refused(folder, match)


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(16, dtype=torch.int8), torch.zeros(16).to_sparse()],
    ids=["int", "sparse"],
)
def test_what_is_no_weight(tmp_path, weight):
    folder = energy(tmp_path, add={"transformer.norm.weight": weight})
    refused(
        folder, r"transformer\.norm\.weight must hold floating-point numbers, all of them; got"
    )


@pytest.mark.parametrize(
    "kind, key",
    [
        ("flow", "generative_head.net.final_layer.linear.weight"),
        ("energy", "ae_model.encoder.squeeze_layer.weight"),
        ("energy", "ae_model.encoder.encoder_layers.0.mlp.gate_proj.weight"),
    ],
)
def test_sizes_that_are_read_off_a_tensor(tmp_path, kind, key):
    config, tensors = calm_checkpoint(kind)
    folder = write(tmp_path, config, tensors | {key: torch.tensor(1.0)})
    refused(folder, rf"{re.escape(key)} must be a matrix; got shape \(\)")


def test_duplicates_that_differ(tmp_path):
    """Neither is tied to the other: two modules of the published network share them."""
    config, tensors = calm_checkpoint("energy")
    key = "mlp_generator.norm_noise.weight"
    changed = tensors[key].clone()
    changed.view(-1)[-1] *= 1 + 1e-9
    folder = write(tmp_path, config, tensors | {key: changed})
    refused(folder, rf"{re.escape(key)} must be equal to .*both are one tensor")


@pytest.mark.parametrize(
    "other", [lambda x: x.float(), lambda x: x.view(torch.float16)], ids=["float32", "same bits"]
)
def test_duplicates_of_other_precision(tmp_path, other):
    config, tensors = calm_checkpoint("energy", dtype=torch.bfloat16)
    key = "mlp_generator.norm_noise.weight"
    folder = write(tmp_path, config, tensors | {key: other(tensors[key])})
    refused(folder, "must be equal to generative_head")


def test_duplicates_with_nans_are_equal(tmp_path):
    config, tensors = calm_checkpoint("energy")
    for head in ("generative_head", "mlp_generator"):
        tensors[f"{head}.norm_noise.bias"] = torch.full((16,), torch.nan)
    head = load_published_calm(write(tmp_path, config, tensors)).head
    assert bool(head.noise_norm.bias.isnan().all())


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', as in the published .*got 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias must be False.*got True"),
        ({"attention_bias": True}, "attention_bias must be False"),
        ({"head_dim": 8}, "head_dim must be 4.*got 8"),
        ({"hidden_size": "16"}, "hidden_size must be a whole number of at least 1; got '16'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number of at least 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be at most 1000; got 1000000000"),
        ({"num_mlp_layers": 1001}, "num_mlp_layers must be at most 1000"),
        ({"num_mlp_layers": True}, "num_mlp_layers must be a whole number"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps must be a number that is not negative"),
        ({"rope_theta": float("nan")}, "rope_theta must be a number that is not negative"),
        ({"num_attention_heads": 3}, r"config\.json: hidden_size must be a multiple of 2 \* he"),
        ({"num_key_value_heads": 3}, r"config\.json: kv_heads must divide"),
        ({"beta": 2.0}, r"config\.json: alpha must be in \(0, 2\)"),
        ({"num_samples": 1}, r"config\.json: num_samples must be at least 2"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, "rope_scaling must be null, or have default"),
        ({"rope_scaling": 2.0}, "rope_scaling must be null, or have default"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor must be there; it is missing"),
    ],
)
def test_config(tmp_path, changes, match):
    refused(energy(tmp_path, **changes), match)


@pytest.mark.parametrize("values", [{}, {"head_dim": None}, {"head_dim": 4}])
def test_config_may_state_what_follows(tmp_path, values):
    assert load_published_calm(energy(tmp_path, **values)).backbone.head_dim == 4


@pytest.mark.parametrize("key", ["rope_theta", "num_key_value_heads", "num_mlp_layers", "beta"])
def test_config_without_a_key(tmp_path, key):
    config, tensors = calm_checkpoint("energy")
    del config[key]
    refused(write(tmp_path, config, tensors), rf"config\.json: {key} must be there; it is missing")


def test_output_of_the_head(tmp_path):
    config, tensors = calm_checkpoint("flow")
    tensors["generative_head.net.final_layer.linear.weight"] = torch.zeros(7, 16)
    folder = write(tmp_path, config, tensors)
    refused(folder, r"final_layer\.linear\.weight must have latent_size = 5 rows .*got 7")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "\x80", "[" * 10**5, '{"a":' * 101 + "1" + "}" * 101, '{"a": ' + "1" * 5000],
    ids=["empty", "cut", "list", "bytes", "deep", "deeper than 100", "digits"],
)
def test_config_that_is_no_json_object(tmp_path, text):
    folder = energy(tmp_path)
    (folder / "config.json").write_bytes(text.encode("latin1"))
    refused(folder, r"config\.json must (be JSON|hold a JSON object)")


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin"])
def test_missing_file(tmp_path, name):
    folder = energy(tmp_path)
    (folder / name).unlink()
    refused(folder, "must be there: a published" if name == "config.json" else "no weights")


@pytest.mark.parametrize("form", ["bin", "safetensors", "bin shards", "safetensors shards"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_file_cut_short(tmp_path, form, share):
    folder = energy(tmp_path, form=form)
    file = sorted(p for p in folder.iterdir() if p.suffix in (".bin", ".safetensors"))[-1]
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    refused(folder, rf"{re.escape(str(file))} must (be whole|hold tensors)")


class Code:
    """Unpickled, it would make a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("form", ["bin", "bin shards"])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_not_run(tmp_path, form, legacy):
    folder, marker = energy(tmp_path / "model", form=form), tmp_path / "marker"
    file = sorted(folder.glob("*.bin"))[-1]
    bad = torch.load(file, weights_only=True) | {"transformer.norm.weight": Code(marker)}
    torch.save(bad, file, _use_new_zipfile_serialization=not legacy)
    refused(folder, rf"{re.escape(str(file))} must hold tensors and nothing else; it holds code")
    assert not marker.exists()
    # The file is what it is meant to be: read without care, it does run.
    torch.load(file, weights_only=False)
    assert marker.exists()


def test_damage_anywhere_is_a_damaged_file(tmp_path):
    """Whatever bytes are changed: the file is refused, or one number of a tensor is another."""
    folder = write(tmp_path, *autoencoder_checkpoint())
    file = folder / "pytorch_model.bin"
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    content, generator = file.read_bytes(), random.Random(0)
    refusals = 0
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[generator.randrange(2500)] = generator.randrange(256)
        file.write_bytes(damaged)
        try:
            load_published_autoencoder(folder)
        except CheckpointFormatError as error:
            assert str(file) in str(error)
            refusals += 1
    assert refusals > 50


def test_old_format_of_torch_is_read(tmp_path):
    folder = energy(tmp_path)
    file = folder / "pytorch_model.bin"
    content = torch.load(file, weights_only=True)
    torch.save(content, file, _use_new_zipfile_serialization=False)
    norm = load_published_calm(folder).backbone.norm.weight
    assert torch.equal(norm, content["transformer.norm.weight"])


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1.0}, {1: torch.zeros(2)}])
def test_pickle_of_something_else(tmp_path, content):
    folder = energy(tmp_path)
    torch.save(content, folder / "pytorch_model.bin")
    refused(folder, "must hold named tensors and nothing else")


class TestShards:
    def changed(self, tmp_path, change):
        folder = energy(tmp_path, form="bin shards")
        file = folder / "pytorch_model.bin.index.json"
        index = json.loads(file.read_text())
        change(index["weight_map"])
        file.write_text(json.dumps(index))
        return folder

    def test_missing(self, tmp_path):
        folder = energy(tmp_path, form="bin shards")
        (folder / "pytorch_model-00002-of-00003.bin").unlink()
        refused(folder, r"index\.json: its shard pytorch_model-00002-of-00003\.bin is missing")

    def test_tensor_in_the_index_only(self, tmp_path):
        def change(places):
            places["a"] = places["transformer.norm.weight"]

        refused(self.changed(tmp_path, change), "a must be in the shard .* is in the index only")

    def test_tensor_in_the_shard_only(self, tmp_path):
        folder = self.changed(tmp_path, lambda places: places.pop("transformer.norm.weight"))
        refused(folder, r"transformer\.norm\.weight must be in the shard .* is not in the index")

    @pytest.mark.parametrize(
        "place", ["../pytorch_model.bin", "/elsewhere/pytorch_model.bin", "", ".."]
    )
    def test_file_elsewhere(self, tmp_path, place):
        def change(places):
            places["transformer.norm.weight"] = place

        refused(self.changed(tmp_path, change), f"{place!r} must be a file of this folder")

    @pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
    def test_index_without_places(self, tmp_path, index):
        folder = energy(tmp_path, form="bin shards")
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        refused(folder, "weight_map must map the name of each tensor")


def test_no_autoencoder(tmp_path):
    config, tensors = calm_checkpoint("energy")
    bare = {k: v for k, v in tensors.items() if not k.startswith("ae_model.")}
    folder = write(tmp_path, config, bare)
    refused(folder, r"Pass autoencoder=load_published_autoencoder.*'/home/somebody/autoencoder'")
    folder = write(tmp_path, config | {"ae_path": None}, bare)
    refused(folder, r"convert --autoencoder FOLDER`\.$")


def test_a_given_autoencoder_that_does_not_fit_is_left_as_it_was(tmp_path):
    folder, given = energy(tmp_path), MLPAutoencoder(2, 13, 6, width=4)
    with pytest.raises(ValueError, match="latent_size of autoencoder and head must be equal"):
        load_published_calm(folder, autoencoder=given)
    assert given.training and all(p.requires_grad for p in given.parameters())


def test_a_refused_file_leaves_a_given_autoencoder_as_it_was(tmp_path):
    folder, given = energy(tmp_path, drop=["embed_proj.0.bias"]), MLPAutoencoder(2, 13, 5, width=4)
    with pytest.raises(CheckpointFormatError):
        load_published_calm(folder, autoencoder=given)
    assert given.training and all(p.requires_grad for p in given.parameters())


def test_an_autoencoder_is_no_language_model_nor_the_other_way(tmp_path):
    write(tmp_path / "autoencoder", *autoencoder_checkpoint())
    refused(tmp_path / "autoencoder", r"must contain ae_model\.\* unless an autoencoder is given")
    refused(
        energy(tmp_path / "calm"), "num_encoder_layers must be there", load_published_autoencoder
    )


def test_safetensors_come_first(tmp_path):
    """As in transformers: a pickle beside them is not even opened."""
    folder = energy(tmp_path, form="safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    assert isinstance(load_published_calm(folder), nn.Module)
    assert os.path.exists(folder / "pytorch_model.bin")
