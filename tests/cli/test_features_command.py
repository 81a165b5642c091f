"""`calmkit features` on an untrained saved model: files, refusals, both kinds of vectors."""

import json

import pytest
import torch
from precision import in_float32

import calmkit
from calmkit import config
from calmkit.autoencoders import SparseAutoencoder
from calmkit.cli import main
from calmkit.data import prepare_corpus
from calmkit.experiments.model_folder import save_checkpoint

FEW = ["--rows=60", "--features=16", "--active=2", "--steps=5", "--rows_to_learn=6", "--count=2",
       "--new_chunks=2", "--strengths=[0,3]"]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A CALM and a TokenLM, untrained and small, as `calmkit train` saves them."""
    cache = tmp_path_factory.mktemp("cache")
    saved = []
    for model in ("calm", "token_lm"):
        options = [
            "--vocab_size=300", "--hidden_size=16", "--backbone.depth=1", "--backbone.heads=2",
            f"--cache_dir={cache}", "--positions=8", "--evaluation.rows=6",
            "--evaluation.min_context=4", f"--model={model}",
            *(["--head.width=16"] if model == "calm" else ["--chunk_size=1"]),
        ]  # fmt: skip
        parsed = config.parse(options, command="calmkit train")
        corpus = prepare_corpus(None, vocab_size=300, cache_dir=parsed.experiment.cache_dir)
        with in_float32():
            built = config.assemble(parsed.experiment, parsed.experiment.head)
        folder = tmp_path_factory.mktemp(model)
        save_checkpoint(folder, model=built, tokenizer=corpus.tokenizer, config_text=parsed.text)
        saved.append(folder)
    return saved


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("kind", ["latents", "states"])
def test_prints_and_writes_all(folders, kind, capsys):
    assert main(["features", f"--checkpoint={folders[0]}", f"--of={kind}", *FEW]) == 0
    printed = capsys.readouterr().out
    output = folders[0] / f"features-{kind}"
    text = (output / "features.txt").read_text(encoding="utf-8")
    assert "".join(text.split()) in "".join(printed.split())  # a pipe is 100 columns wide
    assert text.startswith(f"{kind}: explained")
    content = json.loads((output / "features.json").read_text(encoding="utf-8"))
    assert content["kind"] == kind and content["features"]
    assert all([x["strength"] for x in one["steering"]] == [0, 3] for one in content["features"])
    sparse = calmkit.load(output / "sparse_autoencoder", kind=SparseAutoencoder)
    assert (sparse.features, sparse.active) == (16, 2)
    assert torch.isfinite(sparse(torch.zeros(1, sparse.size))).all()


@pytest.mark.usefixtures("float32", "hub", "run")
def test_the_study_of_a_model_of_the_hub_does_not_go_to_its_cache(tmp_path):
    options = [*FEW, "--positions=18", "--data=text.txt", "--rows=2"]
    (tmp_path / "text.txt").write_text("Some text, to learn from. " * 90)
    assert main(["features", "--checkpoint=owner/name", *options]) == 0
    written = {file.name for file in (tmp_path / "runs/name/features-latents").iterdir()}
    assert {"features.json", "features.txt", "sparse_autoencoder"} <= written


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--active=20", "--features=16"], "active must be at most the 16 features; got 20"),
        (["--steps=0"], "steps must be at least 1; got 0"),
        (["--of=tokens"], "of"),
    ],
)
def test_mistakes_are_told(folders, options, message, capsys):
    assert main(["features", f"--checkpoint={folders[0]}", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("float32")
def test_a_softmax_model_has_no_latents(folders, capsys):
    assert main(["features", f"--checkpoint={folders[1]}"]) == 2
    assert "checkpoint must hold a CALM; got a TokenLM" in capsys.readouterr().err
