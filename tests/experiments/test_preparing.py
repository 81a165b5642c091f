"""What is wrong is found before anything is trained."""

import pytest

from calmkit.config import parse
from calmkit.experiments.preparing import prepare

GPT2 = {
    "backbone": "HuggingFaceBackbone",
    "backbone.init_args.model_type": "gpt2",
}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        # Rows of 40 chunks; two tokens more are drawn and read for 4-grams; the sample of 4
        # tokens and the clock, which lets 12 chunks be written, need less.
        ({"chunk_size": 4, "positions": 40}, 40),
        ({"chunk_size": 2, "positions": 40}, 40),
        ({"chunk_size": 1, "positions": 40}, 42),
        ({"chunk_size": 4, "positions": 12}, 4 + 12 - 1),
        ({"chunk_size": 4, "positions": 12, "sample_tokens": 65}, 4 + 17 - 1),
    ],
)
def test_too_few_learned_positions_are_named(options, needed, monkeypatch):
    pytest.importorskip("transformers")
    given = {**GPT2, "hidden_size": 16, "sample_tokens": 4, "evaluation.min_context": 4, **options}

    def experiment(positions):
        sizes = f'{{"n_layer": 1, "n_head": 2, "n_positions": {positions}}}'
        there = {**given, "backbone.init_args.settings": sizes}
        arguments = [f"--{name}={value}" for name, value in there.items()]
        return parse(arguments, command="calmkit train").experiment

    def reached(*arguments, **options):
        raise LookupError("text")

    monkeypatch.setattr("calmkit.experiments.preparing.prepare_corpus", reached)
    with pytest.raises(ValueError, match=rf"backbone must have at least {needed} positions.* has"):
        prepare(experiment(needed - 1))
    with pytest.raises(LookupError):
        prepare(experiment(needed))
