"""The decoder's output, tied to the embedding: what a file holds there does not count.

Files of the published code may have uninitialised memory in its place: any finite numbers, NaN,
or zeros, as fresh pages of memory are.
"""

import json
import warnings

import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from calmkit.cli import main
from calmkit.interop import (
    CheckpointFormatError,
    CheckpointWarning,
    load_published_autoencoder,
    load_published_calm,
)

EMBEDDING, COPY = "encoder.embed_tokens.weight", "decoder.lm_head_weight"
GARBAGE = {
    "finite": lambda x: torch.full_like(x, 3e38) * torch.linspace(-1, 1, x.numel()).view_as(x),
    "nan": lambda x: torch.full_like(x, torch.nan),
    "zeros": torch.zeros_like,
    "one last bit": lambda x: x.nextafter(torch.full_like(x, 9.0)),
    "another dtype": lambda x: x.float(),
}
WHOLE = {
    "autoencoder": ("", load_published_autoencoder),
    "model": ("ae_model.", load_published_calm),
}


@pytest.fixture(params=WHOLE)
def checkpoint(request):
    """Config, tensors, what stands before their names, and how they are loaded."""
    lone = request.param == "autoencoder"
    config, tensors = autoencoder_checkpoint() if lone else calm_checkpoint("energy")
    return config, tensors, *WHOLE[request.param]


def same_weights(one, other):
    return all(
        torch.equal(x, y)
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("form", ["bin", "safetensors", "safetensors shards"])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_the_embedding_counts(tmp_path, checkpoint, form, garbage):
    config, tensors, prefix, read = checkpoint
    right = read(write(tmp_path / "right", config, tensors, form))  # no warning: they are errors
    tensors[prefix + COPY] = garbage(tensors[prefix + COPY])
    folder = write(tmp_path / "wrong", config, tensors, form)
    with pytest.warns(CheckpointWarning) as told:
        wrong = read(folder)
    (warning,) = told
    text = str(warning.message)
    assert f"{prefix}{COPY} is not read" in text and f"{prefix}{EMBEDDING}, to which" in text
    assert str(folder) in text and "\n" not in text
    assert same_weights(right, wrong)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
@pytest.mark.parametrize("left_out", [EMBEDDING, COPY])
def test_either_alone_is_enough(tmp_path, checkpoint, form, left_out):
    config, tensors, prefix, read = checkpoint
    both = read(write(tmp_path / "both", config, tensors, form))
    del tensors[prefix + left_out]
    assert same_weights(both, read(write(tmp_path / "one", config, tensors, form)))


@pytest.mark.parametrize("form", ["bin", "safetensors"])
@pytest.mark.parametrize("copy", ["right", "as wrong", "missing"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_embedding_that_is_not_finite_is_refused(tmp_path, checkpoint, form, copy, bad):
    config, tensors, prefix, read = checkpoint
    tensors[prefix + EMBEDDING].view(-1)[3] = bad
    if copy == "as wrong":
        tensors[prefix + COPY] = tensors[prefix + EMBEDDING].clone()
    if copy == "missing":
        del tensors[prefix + COPY]
    folder = write(tmp_path, config, tensors, form)
    count = tensors[prefix + EMBEDDING].numel()
    message = rf"{prefix}encoder\.embed_tokens\.weight must be finite; 1 of {count} values"
    with pytest.raises(CheckpointFormatError, match=message):
        read(folder)


def test_a_copy_of_another_shape_is_refused(tmp_path, checkpoint):
    config, tensors, prefix, read = checkpoint
    tensors[prefix + COPY] = tensors[prefix + COPY][:-1].clone()
    with pytest.raises(CheckpointFormatError, match=r"lm_head_weight must have shape"):
        read(write(tmp_path, config, tensors))


@pytest.fixture
def folder(tmp_path):
    """A language model with garbage, and a tokenizer of one letter a token."""
    config, tensors = calm_checkpoint("flow", dtype=torch.float32)
    tensors["ae_model." + COPY] = torch.full_like(tensors["ae_model." + COPY], torch.nan)
    folder = write(tmp_path / "published", config, tensors, "safetensors")
    vocab = {letter: n for n, letter in enumerate(["<unk>", "</s>", *"abcdefghijk"])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_commands_warn_in_one_line_and_go_on(tmp_path, folder, capsys):
    (tmp_path / "text.txt").write_text("abcde fghij " * 40)
    evaluation = "--rows=4 --positions=8 --draws=2 --min_context=2".split()
    told = "ae_model.decoder.lm_head_weight is not read"
    for command, options in (
        ("generate", ["--prompt", "ab", "--max_new_tokens", "4"]),
        (
            "evaluate",
            ["--data", str(tmp_path / "text.txt"), "--output", str(tmp_path / "e"), *evaluation],
        ),
        ("convert", ["--output", str(tmp_path / "ours")]),
    ):
        assert main([command, "--checkpoint", str(folder), *options]) == 0, capsys.readouterr()
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if told in line]
        assert len(lines) == 1 and lines[0].startswith(f"calmkit {command}: warning: ")
        assert told not in captured.out and "conversion.py" not in captured.err
    # What was converted is right, and says nothing.
    assert main(["generate", "--checkpoint", str(tmp_path / "ours"), "--prompt", "ab"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_other_warnings_are_left_alone(folder, capsys, monkeypatch):
    def warn(options):
        warnings.warn("something else", stacklevel=1)

    monkeypatch.setattr("calmkit.cli.generate.run", warn)
    with pytest.raises(UserWarning, match="something else"):
        main(["generate"])


def test_python_may_ignore_warnings(folder, capsys):
    """The command tells all the same."""
    options = ["--checkpoint", str(folder), "--output", str(folder.parent / "ours")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as `python -W ignore` does
        assert main(["convert", *options]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "lm_head_weight is not read" in line
