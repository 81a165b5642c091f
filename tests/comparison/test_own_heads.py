"""A head in a file of one's own, edited between two runs of the same command."""

import dataclasses

import pytest
from own_code import Files, forget

from calmkit.cli import main
from calmkit.comparison import read_results
from calmkit.comparison.planned_runs import do_run
from calmkit.comparison.planning import plan_runs, prepare_all
from calmkit.config import parse_comparison
from calmkit.experiments import Silent
from calmkit.reports import plots

SIZES = [
    "--autoencoder_training.steps=4", "--autoencoder_training.warmup_steps=0",
    "--training.steps=4", "--training.warmup_steps=0", "--evaluation.rows=4",
    "--evaluation.bootstrap=10",
    "--validation_rows=2", "--sample_tokens=4", "--vocab_size=300", "--hidden_size=16",
    "--backbone.depth=1", "--backbone.heads=2", "--positions=20",
]  # fmt: skip
HEAD = """
from calmkit.heads import EnergyHead
from .scales import SCALE

class MyHead(EnergyHead):
    def loss(self, cond, target, generator=None):
        return SCALE * super().loss(cond, target, generator)
"""


@pytest.fixture
def files(tmp_path, monkeypatch, float32):
    """A package with a head and a helper of it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "draw_plots", lambda rows: [])
    monkeypatch.syspath_prepend(str(tmp_path))
    files = Files(tmp_path)
    yield files.write(own_pack__init="", own_pack__heads=HEAD, own_pack__scales="SCALE = 1.0")
    forget()


def run(command, *options):
    forget()
    return main([command, *options])


def test_compare_trains_again_what_other_code_would_give_other_numbers(files, capsys):
    variants = "{mine: {head: own_pack.heads.MyHead, backbone: {init_args: {depth: 1}}}}"
    options = ["--config=ci", *SIZES, "--variants", variants, "--output=out"]

    def losses():
        capsys.readouterr()
        assert run("compare", *options) == 0
        (one,) = read_results(files.folder / "out" / "results.json").variants
        return one.runs[0].validation_losses, capsys.readouterr().out

    before, said = losses()
    assert "again" not in said
    files.write(own_pack__heads=HEAD.replace("class", "# A head of mine.\nclass"))
    same, said = losses()
    assert same == before and "1 of 1 runs are already finished" in said

    files.write(own_pack__scales="SCALE = 2.0")
    changed, said = losses()
    (_, loss), (_, first) = changed[0], before[0]
    assert loss == pytest.approx(2 * first, rel=0.2)
    assert "mine, seed 0, is repeated: own_pack.scales has changed." in said
    trained = [path.name for path in (files.folder / "out" / "trained").iterdir()]
    assert sorted(name.partition("-")[0] for name in trained) == ["autoencoder", "model", "model"]

    files.write(own_pack__scales="SCALE = 1.0")  # what was kept is found again
    assert losses()[0] == before


def test_train_does_not_go_on_with_other_code_or_other_text(files, capsys):
    text = files.folder / "some.txt"
    text.write_text("\n\n".join(f"Some text, number {n}. " * 9 for n in range(90)))
    options = ["--head=own_pack.heads.MyHead", *SIZES, f"--data={text}", "--output=out"]
    options += ["--evaluation.min_context=4"]
    assert run("train", *options) == 0
    files.write(own_pack__heads=HEAD + "\n# A remark.\n")
    assert run("train", *options) == 0  # finished: it is loaded, and measured again
    written = {path: path.read_bytes() for path in (files.folder / "out").glob("*.*")}

    files.write(own_pack__scales="SCALE = 2.0")
    capsys.readouterr()
    assert run("train", *options) == 2
    assert capsys.readouterr().err == (
        "calmkit train: code must be as it was when the run in out/checkpoints started; "
        "own_pack.scales has changed. Choose another output, or delete out/checkpoints to start "
        "again.\n"
    )
    files.write(own_pack__scales="SCALE = 1.0")
    # The same length and the same first rows: only the digest of the text can tell.
    text.write_text(text.read_text().replace("number 88", "number 44"))
    assert run("train", *options) == 2
    said = "calmkit train: text must be as it was when the run in out/checkpoints started"
    assert capsys.readouterr().err.startswith(said)
    assert (files.folder / "out" / "model.safetensors") in written
    assert {path: path.read_bytes() for path in written} == written

    (files.folder / "out" / "checkpoints" / "begun.json").write_text("{")
    assert run("train", *options) == 2
    assert "out/checkpoints/begun.json must record the code" in capsys.readouterr().err


def test_a_process_with_other_code_than_was_planned_with_does_no_run(tmp_path):
    """As when a file is edited while a comparison runs, before the next process imports it."""
    comparison = parse_comparison(["--config=ci", "--variants={a: {}}", f"--output={tmp_path}"])
    (planned,) = plan_runs(prepare_all(comparison), Silent())
    other = {**planned.code, "calmkit.heads.energy": "0" * 32}
    failure = do_run(dataclasses.replace(planned, code=other), Silent())
    assert failure.reason == (
        "ValueError: code must stay the same while a comparison runs; calmkit.heads.energy has "
        "changed. Run it again."
    )
    assert not (tmp_path / "trained").exists()
