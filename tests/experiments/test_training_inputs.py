"""A model on the autoencoder of another one."""

import shutil

import numpy as np
import pytest
import torch
from precision import in_float32
from prepared_folders import write_prepared

import calmkit
from calmkit.data import TextTokenizer
from calmkit.experiments import inputs_of, load_checkpoint, plan_evaluation, prepare
from calmkit.experiments.keys import autoencoder_key, training_key
from calmkit.experiments.resuming import check_resumable
from calmkit.training import CheckpointError

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def base(averaged, small):
    """A copy of a trained model, to be named."""
    return shutil.copytree(averaged.folder, small.folder / "base")


@pytest.fixture(scope="module")
def second(base, small):
    """A model of another shape on that model's autoencoder."""
    options = [f"--autoencoder={base}", "--hidden_size=24", "--head=FlowHead", "--seed=5",
               "--latent_size=6", "--training.ema=null"]  # fmt: skip
    with in_float32():
        return small.train(*options, output="second")


def weights_of(folder):
    return calmkit.load(folder).autoencoder


def test_the_weights_are_the_named_ones_and_no_stage_trains_them(second, averaged):
    got, want = weights_of(second.folder), weights_of(averaged.folder)
    for name, tensor in want.autoencoder.state_dict().items():
        torch.testing.assert_close(got.autoencoder.state_dict()[name], tensor, rtol=0, atol=0)
    assert not (second.folder / "checkpoints" / "autoencoder").exists()
    assert second.record.result.autoencoder_accuracy == averaged.record.result.autoencoder_accuracy
    # Standardised on the rows of its own seed.
    assert bool((got.scale != 1).all()) and not torch.equal(got.shift, want.shift)


def test_the_model_is_whole_without_the_named_folder(second, base):
    moved = base.rename(base.with_name("moved"))
    try:
        checkpoint = load_checkpoint(second.folder)
        plan_evaluation(checkpoint, note=lambda text: None)
    finally:
        moved.rename(base)


def test_resuming_takes_the_same_autoencoder_wherever_it_lies(second, base, small):
    def check(folder):
        options = [] if folder is None else [f"--autoencoder={folder}"]
        parsed = small.parsed(
            *options, "--hidden_size=24", "--head=FlowHead", "--seed=5", "--training.ema=null",
            output="second",
        )  # fmt: skip
        inputs = inputs_of(parsed.experiment, second.corpus)
        check_resumable(small.folder / "second", parsed.text, **inputs)

    check(base)
    copy = shutil.copytree(base, small.folder / "copy")
    check(copy)
    with pytest.raises(CheckpointError, match="autoencoder must be as it was when the run"):
        check(None)
    model = calmkit.load(copy)
    with torch.no_grad():
        model.autoencoder.autoencoder.embedding.weight[0, 0] += 1
    calmkit.save(model, copy)
    with pytest.raises(CheckpointError, match="autoencoder must be as it was when the run"):
        check(copy)


def test_keys_depend_on_its_content_alone(second, base, small):
    def keys(folder):
        options = [] if folder is None else [f"--autoencoder={folder}"]
        parsed = small.parsed(*options, output="keys")
        arguments = parsed.text, parsed.experiment, second.corpus
        return autoencoder_key(*arguments), training_key(*arguments, ())

    copy = shutil.copytree(base, small.folder / "of keys")
    own = keys(base)
    assert keys(copy) == own
    new = keys(None)
    assert new[0] != own[0] and new[1] != own[1]
    model = calmkit.load(copy)
    with torch.no_grad():
        model.autoencoder.autoencoder.embedding.weight[0, 0] += 1
    calmkit.save(model, copy)
    assert keys(copy)[0] != own[0] and keys(copy)[1] != own[1]


def test_the_text_must_have_its_tokenizer(base, small):
    small.write_text("other.jsonl", [f"Quite another text of {n * n} words" for n in range(60)])
    parsed = small.parsed(
        f"--autoencoder={base}", f"--data={small.folder / 'other.jsonl'}", output="other"
    )
    with pytest.raises(ValueError, match="data must be prepared with the tokenizer of the autoe"):
        prepare(parsed.experiment)


def test_prepared_text_must_have_its_token_ids(base, small):
    documents = [np.arange(9)]
    folder = write_prepared(
        small.folder / "prepared", train=documents, validation=documents, shard_tokens=8,
        vocab_size=257, tokenizer=TextTokenizer.train(["text"], vocab_size=257).to_json(),
    )  # fmt: skip
    parsed = small.parsed(f"--autoencoder={base}", f"--data={folder}", output="other")
    with pytest.raises(ValueError, match="data must have the 280 token ids of the autoencoder in"):
        prepare(parsed.experiment)


def test_an_autoencoder_without_a_tokenizer_is_told(base, small):
    bare, notes = small.folder / "bare", []
    calmkit.save(calmkit.load(base).autoencoder, bare)
    parsed = small.parsed(f"--autoencoder={bare}", output="other")

    class Told:
        def note(self, text):
            notes.append(text)

        def track(self, label):
            return lambda progress: None

    prepare(parsed.experiment, Told())
    assert any("bare has no tokenizer" in note for note in notes)
