"""Fine-tuning from files to a folder that `calmkit generate` reads."""

import hashlib
import json

import pytest
import torch
import yaml
from rich.console import Console

from calmkit import cli
from calmkit.cli.display import Display
from calmkit.config import assemble, parse
from calmkit.data import TextTokenizer
from calmkit.experiments import finetuning
from calmkit.experiments.finetuning import finetune, prepare_finetuning
from calmkit.experiments.model_folder import load_checkpoint, save_checkpoint
from calmkit.training import step_generator

pytestmark = pytest.mark.usefixtures("float32")

SMALL = [
    "--vocab_size=257", "--latent_size=8", "--hidden_size=16", "--positions=17",
    "--autoencoder.width=16", "--backbone.depth=1", "--backbone.heads=2", "--head.width=16",
    "--head.depth=1", "--head.num_samples=2",
]  # fmt: skip
FINETUNE = ["--training.steps=6", "--training.warmup_steps=1", "--training.checkpoint_every=2",
            "--training.batch_size=2", "--accelerator=cpu"]  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    """An untrained small model, and pairs."""
    options = [*SMALL, f"--data={tmp_path / 'gone.txt'}", f"--output={tmp_path / 'base'}"]
    parsed = parse(options, command="calmkit train")
    torch.manual_seed(0)
    model = assemble(parsed.experiment, parsed.experiment.head)
    model.autoencoder.shift.fill_(0.25)  # a buffer: it must travel too
    save_checkpoint(
        tmp_path / "base", model=model, config_text=parsed.text,
        tokenizer=TextTokenizer.train(["some text"], vocab_size=257),
    )  # fmt: skip
    records = [{"prompt": f"What is {n}?", "response": f"{n}!" * (n % 3 + 1)} for n in range(10)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path


def parsed_options(folder, *options):
    given = [f"--checkpoint={folder / 'base'}", f"--finetune={folder / 'pairs.jsonl'}",
             f"--output={folder / 'out'}", *FINETUNE, *options]  # fmt: skip
    return parse(given, command="calmkit train")


def run(parsed):
    prepared = prepare_finetuning(parsed.experiment)
    with Display(Console(quiet=True)) as display:
        return finetune(parsed.experiment, prepared, config_text=parsed.text, display=display)


def test_it_begins_with_the_saved_weights_and_config(saved):
    parsed = parsed_options(saved, "--head.num_samples=4")
    prepared = prepare_finetuning(parsed.experiment)
    before = load_checkpoint(saved / "base").model
    torch.testing.assert_close(prepared.model.state_dict(), before.state_dict(), rtol=0, atol=0)
    # What has no weights may be another.
    assert (before.head.num_samples, prepared.model.head.num_samples) == (2, 4)
    assert len(prepared.train.pairs) == 9 and len(prepared.held_out.pairs) == 1
    held_out = [pair.place for pair in prepared.held_out.pairs]
    assert not set(held_out) & {pair.place for pair in prepared.train.pairs}
    assert prepared.name == "pairs.jsonl"


def test_what_is_saved_is_read_by_generate_and_repeats_itself(saved, capsys):
    parsed = parsed_options(saved)
    result = run(parsed)
    out, base = saved / "out", load_checkpoint(saved / "base").model
    tuned = load_checkpoint(out)
    for name, weight in tuned.model.state_dict().items():
        stays = name.startswith("autoencoder.")
        assert torch.equal(weight, base.state_dict()[name]) == stays, name
    assert (out / "tokenizer.json").read_bytes() == (saved / "base/tokenizer.json").read_bytes()
    options = ["generate", f"--checkpoint={out}", "--prompt=What is 3?", "--max_new_tokens=5"]
    assert cli.main(options) == 0
    assert capsys.readouterr().out.startswith("What is 3?")
    # The effective config alone does it again, to the same bytes, elsewhere.
    again = ["--config", str(out / "config.yaml"), f"--output={saved / 'again'}"]
    repeated = run(parse(again, command="calmkit train"))
    first, second = ((saved / x / "model.safetensors").read_bytes() for x in ("out", "again"))
    assert first == second
    assert (repeated.before, repeated.after) == (result.before, result.after)


def test_the_result_says_what_was_done(saved):
    result = run(parsed_options(saved))
    assert (result.pairs, result.held_out_pairs, result.seed) == (9, 1, 0)
    # Both on the same rows with the same draws, by the model that was loaded and that was saved.
    rows = prepare_finetuning(parsed_options(saved).experiment).held_out.batch_at(0)
    for folder, scores in (("base", result.before), ("out", result.after)):
        model = load_checkpoint(saved / folder).model
        with torch.no_grad():  # bitwise the same: attention is computed otherwise with gradients
            loss = model.loss(rows, step_generator(0, 0)).total
        assert scores.loss == loss.item()
    assert result.after.loss != result.before.loss
    assert result.training_seconds > 0
    facts = json.loads((saved / "out" / "finetuning.json").read_text())
    assert facts["after"] == {"loss": result.after.loss, "reproduced": result.after.reproduced}
    content = (saved / "pairs.jsonl").read_bytes()
    assert facts["digest"] == hashlib.sha256(content).hexdigest()
    assert "pairs.jsonl: trained on 9 pairs" in str(result) and "1 held out" in str(result)


def test_an_interrupted_run_goes_on_to_the_same_weights(saved):
    run(parsed_options(saved, f"--output={saved / 'whole'}"))
    ask, calls = finetuning.model_objective, []

    def interrupted(module, batch, generator):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ask(module, batch, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "model_objective", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(parsed_options(saved))
        assert not (saved / "out" / "model.safetensors").exists()
        run(parsed_options(saved))
    # Three steps and an interrupted one; then all from the checkpoint of step 2 on.
    assert len(calls) == 4 + 4
    first, second = ((saved / x / "model.safetensors").read_bytes() for x in ("whole", "out"))
    assert first == second


def test_only_the_trained_pairs_are_in_the_batches(saved):
    """Each step's responses are among the training side's; the held-out one is never there."""
    prepared = prepare_finetuning(parsed_options(saved).experiment)
    ((held_out,), tokens) = prepared.held_out.pairs, prepared.train.batch_at(0).tokens
    text = prepared.tokenizer.decode(tokens.flatten().tolist())
    assert "What is " in text
    assert prepared.tokenizer.decode(held_out.prompt.tolist()) not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden_size=32"], r"of the sizes of checkpoint .*base; it does not\. .*mismatch"),
        (["--positions=17", "--finetune=nowhere.jsonl"], "finetune must be an existing"),
    ],
)
def test_mistakes_are_found_before_any_work(saved, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_finetuning(parsed_options(saved, *options).experiment)


def test_a_pair_longer_than_a_row_is_named(saved):
    record = {"prompt": "x" * 40, "response": "y"}
    with (saved / "pairs.jsonl").open("a") as file:
        file.write("\n" + json.dumps(record))
    with pytest.raises(ValueError, match=r"positions = 17 .*pairs\.jsonl:11 does not: 22 chunks"):
        prepare_finetuning(parsed_options(saved).experiment)


def test_without_pairs_there_is_nothing_to_prepare(saved):
    config = saved / "base" / "config.yaml"
    parsed = parse(["--config", str(config)], command="calmkit train")
    with pytest.raises(ValueError, match="must set finetune and checkpoint"):
        prepare_finetuning(parsed.experiment)
    assert yaml.safe_load(parsed.text)["finetune"] is None
